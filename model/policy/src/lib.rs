//! Who may talk to whom: policies and identities turned into verdict tables.
