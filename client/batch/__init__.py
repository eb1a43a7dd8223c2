"""Many photos inverted and edited against a deployment: ``client batch edit``.

`manifest` names the photos, `plan` says what is made of each, `ledger` remembers what is done, `pipeline` keeps the
server busy, and `report` tells how it went.
"""
