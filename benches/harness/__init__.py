"""The parts of the benchmark: queries, inputs, runs of Mainstem, comparison of results, tables of figures."""
