"""Joins the stages; each verb of the command line is one function here."""
