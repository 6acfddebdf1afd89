"""mqtest: which message queue, with which settings, keeps which promise under which failure, and at what cost.

    scenarios/x.toml + compose/*/profiles.toml ──> scenario, profile ──> plan: cells, from one seed
                                                                          │ for each cell
      live half (needs Docker):  cluster up → prepare → workers → warm-up → steady → fault → heal → recover
                                 → drain → audit → cluster down           │ runner, faults, workload, audit,
                                                                          │ brokers, clients, cluster
                                     LEDGER on disk (ledger.py): the only thing that the halves share
                                                                          │
      offline half (needs only files):  history (fates) → checks (findings) → verdict → report

A user's own tests stand on the same ground: pytest_plugin brings a cluster up (testbed), breaks it and audits it, while
their code produces and consumes and tells the ledger (user_ledger); what came of it is in user_judgement.

Each step is a plain call on the previous one's result. The offline half never imports the live half
(tests/test_architecture.py reads the imports), so that an old run can be judged again when a check gets better.
"""

__version__ = "0.1.0"
