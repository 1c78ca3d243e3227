"""The acting process: environments, the acting loop, chunker, spool, policy refresh, evaluation."""
