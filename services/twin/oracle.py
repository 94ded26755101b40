"""What must hold, whatever fails: numbered invariants, checked by somebody who knows the right answers.

Rules: watches, and changes nothing; it trusts no core, so it counts for itself. Each check names its number.

 1. A request has exactly one outcome, and its client sees nothing after it.
 2. The client's text is at every moment a prefix of the right text, and all of it at the end; the reason why it
    ended is the right one. (Token i is a function of the prompt, i and the revision of the model, so a lost or
    doubled token shows, and so does an answer that two revisions wrote.)
 3. Usage is exact: the tokens billed are those of the answer.
 4. A lease is granted to one ticket only, and never again under the same number, over all lives of the queue.
 5. A gateway returns every lease that it accepted exactly once, and runs a choice on one lease at a time; the
    queue takes it back at once.
 6. No engine gets more leases than the slots it has, with the look-ahead that keeps its batch full.
 7. The reserve is kept: nobody waits below its band's reserve while a slot that suits it is free or on loan.
 8. Nobody waits for ever: when all faults are over, every request comes to its end.
 9. No failure without a cause: a deadline that passed, a client that left, two engines that died under the request.
10. The deadline holds: no outcome later than it, and no engine is given a request after it.
11. No dead work: streams of requests that ended are gone from every engine that can still be reached.
12. The books balance inside each core (`check_integrity`).
13. An engine that is fenced moves no token any more: nothing from a fenced epoch is accepted.
14. Nothing is left behind: at the end no lease, no ticket, no stream and no part in a journalled answer remains.
15. Extra work is bounded: tokens computed again stay within the retry budget.
16. A choice takes tokens only from the stream that it has open.
17. A request keeps its place: each registration tells its true age and what was emitted already.
18. What is called back comes back: a preempted lease is returned.
19. A cache hit is an answer to what the same tenant asked before, in the same words and settings.
20. A client that comes back with its last event id, to any gateway, gets exactly the rest, or is told beforehand that
    its answer cannot be resumed.
21. Under one key an answer is billed once, however many clients asked for it, wherever.
22. No new answer begins with a revision that gets no sessions.
23. What was taken back stays so when the queue dies, as long as a gateway lives that was told.
24. Workers are renewed one at a time, and never the last one of a revision.
25. Who leads a flight feeds it tokens of the revision that its key names, or nothing: followers would get, and the
    cache would keep, another model's answer under that name.
26. Without a queue nothing grows: a lease passes to another request of the same band only after it came back unspoilt,
    and only when the queue that counted it is dead.
"""

from __future__ import annotations

from .watch_clients import ClientWatch
from .watch_leases import LeaseWatch
from .watch_queue import QueueWatch
from .watch_releases import ReleaseWatch


class Oracle(ClientWatch, LeaseWatch, QueueWatch, ReleaseWatch):
    """Watches one world; raises Violation (records.py) from within the event that breaks an invariant."""
