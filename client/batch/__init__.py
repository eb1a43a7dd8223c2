"""Inverts and edits many photos: ``client batch edit``.

`manifest` lists the photos, `plan` says what to make of each, `maker` has the servers make one, `ledger` records what
is done, `pipeline` keeps the servers busy from one process and `cluster` from many, and `report` says how it went.
"""
