#!/usr/bin/env python3
"""Submits SQL to a running Flink cluster. Started by `cluster.py` with the Python of the virtual environment that
`setup.sh` makes, since it needs PyFlink.

Reads one JSON object a line, `{"settings": {key: value}, "statements": [sql, ...]}`, and answers each with one
line: `{"job": id}` once the job of all INSERT statements has been submitted, or `{"error": text}`. Ends with the input.
"""

import json
import os
import sys

from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment


def submit(request):
    configuration = Configuration()
    for key, value in request["settings"].items():
        configuration.set_string(key, value)
    settings = EnvironmentSettings.new_instance().in_streaming_mode().with_configuration(configuration).build()
    table_environment = TableEnvironment.create(settings)
    inserts = table_environment.create_statement_set()
    for statement in request["statements"]:
        if statement.upper().startswith("INSERT"):
            inserts.add_insert_sql(statement)
        else:
            table_environment.execute_sql(statement)
    return {"job": str(inserts.execute().get_job_client().get_job_id())}


def root_cause(text):
    """The last cause of a Java stack trace, without the frames."""
    causes = [line for line in text.splitlines() if "Caused by:" in line]
    return (causes[-1] if causes else text)[:500]


def main():
    # Flink's own messages must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for line in sys.stdin:
        try:
            answer = submit(json.loads(line))
        except Exception as error:  # whatever it is, the benchmark reports it and goes on
            answer = {"error": root_cause(str(error))}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
