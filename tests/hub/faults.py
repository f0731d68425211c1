"""Ways in which a Hub fails, by the request that they strike."""

import re
from dataclasses import dataclass, field

CUT = "cut"  # the connection breaks in the middle of the answer
DROP = "drop"  # the connection breaks in the middle of what is being sent


def FLIP(body):
    """A bit of what was sent arrives wrong."""
    return bytes([body[0] ^ 1]) + body[1:]


@dataclass
class Fault:
    """Strikes `times` requests of `method` whose path matches `pattern`.

    The action is a status, CUT, DROP, or a function of what was sent, such as FLIP; it gives what arrives.
    """

    method: str
    pattern: str
    action: object
    times: int = 10**6
    message: str = "as the test asked"
    headers: dict = field(default_factory=dict)

    def hits(self, method, path):
        if self.times > 0 and method == self.method and re.search(self.pattern, path):
            self.times -= 1
            return True
        return False
