"""`atspeed-bench soak`: a server under mixed load while its parts hang, are killed, run out of disk or wait for a slow store.

Invariant: what the server acknowledged stands in ledgers of the soak's own, and what is proved is proved against these. A promise is only
said to be kept if it was looked at after the last fault.
"""
