"""Every error that mqtest raises on purpose; each is one line that a user can act on.

    MqtestError
    ├── UsageError      a scenario, profile, flag or path is wrong            exit 64
    ├── EngineError     the Docker engine is absent, unfit or gone            exit 70
    │   └── ImageError  an image can be neither pulled nor built              exit 70
    ├── ClusterError    a broker did not come up, or refused what we asked    the cell is judged `dead` or `unknown`
    │   └── SettingError  a setting did not take in the broker                the cell is judged `unknown`
    ├── RefusedError    the agent would not touch a target that is not ours   exit 70
    ├── LedgerError     a ledger cannot be read or grown                      the cell is judged `unknown`
    └── WaitTimeout     a bounded wait ran out; says for what                 depends on who waited

Anything else that escapes is a defect of mqtest and shows a traceback.
"""

from __future__ import annotations


class MqtestError(Exception):
    """Base of all errors raised on purpose. `str(error)` is one line for the user."""


class UsageError(MqtestError):
    """The user asked for something that cannot be: names the file, the key and what is allowed."""


class EngineError(MqtestError):
    """The Docker engine is absent, unfit or gone."""


class ImageError(EngineError):
    """An image can be neither pulled nor built."""


class ClusterError(MqtestError):
    """A broker did not come up, or refused what we asked of it."""


class SettingError(ClusterError):
    """A setting that was asked for did not take; names the setting, what was asked and what the broker says."""


class RefusedError(MqtestError):
    """The agent would not act on a target that it could not prove to be ours."""


class LedgerError(MqtestError):
    """A ledger cannot be read, or cannot be grown (disk full)."""


class WaitTimeout(MqtestError):  # noqa: N818 - reads as what it is
    """A bounded wait ran out; the message says what was waited for."""
