"""A fleet in virtual time: real firmware by the hundred, and the gateway they report to.

Everything is killed again and again, and at the end every record that a node holds for
acknowledged must be stored, once. docs/fleet.md.
"""
