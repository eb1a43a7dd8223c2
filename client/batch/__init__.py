"""Many photos inverted and edited against a deployment: ``client batch edit``.

`manifest` names the photos, `plan` says what is made of each, `maker` has the servers make one, `ledger` remembers what
is done, `pipeline` keeps the servers busy from one process and `cluster` from many, and `report` tells how it went.
"""
