"""Our verified load beside the brokers' own perf tools: `mqtest bench`.

    benchmarks/rows.toml ──> rows ──> alternation: one fresh cluster a row, on it mqtest and the tool in turn
                                        │ ours.py: the workers of a cell, the audit, the judge
                                        │ tools.py: commands and output of each tool; cluster/toolbox.py runs it
                                      table: medians, spread, ratio, CPU a message

A run of ours is a cell without a fault, on a topic of its own; its rates count only when every message was judged and
the verdict is `kept`. A tool checks nothing, and neither do we for it. Rules of the figures (figures.py), the same for
both sides as far as a tool's output allows:
- Produce: acknowledgements, from the first to the last one within the measured seconds, after the warm-up.
- Consume: what the run left behind, by one consumer; the first second does not count.
- CPU a message: of the client alone, over the same time: our worker processes, the tool's container.
"""
