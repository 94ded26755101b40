"""Several revisions of one model side by side: who gets which, whether the new one is good, and what follows.

    weights.py   which revision a session gets
    verdict.py   is the new one as good as the old one, by error rate and TTFT
    plan.py      the release as a state machine: canary, blue-green, rolling; promote, abort, roll back
    recycle.py   which worker is old enough to be replaced, one at a time
    desk.py      joins them to the queue's state (the only file here that knows it)

Rules: pure; times are values. Nothing here starts or ends a process: engines come and go by Serve, or because they
were asked to (Retire).
"""
