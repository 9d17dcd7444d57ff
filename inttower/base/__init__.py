"""The base of the default score: a logistic filter over live counters, from the first row on."""
