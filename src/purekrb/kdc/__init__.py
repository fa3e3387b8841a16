"""Talking to KDCs: finding a realm's KDCs, sending requests by UDP or TCP, the clients.

A transport is one module here and one row in the table of transport.py. The exchanges themselves
are in `purekrb.exchanges`.
"""
