"""Flink's Kafka connector, from Maven Central into the directory of the benchmarks."""

import shutil
import urllib.error
import urllib.request
from pathlib import Path

NAME = "flink-sql-connector-kafka-5.0.0-2.2.jar"
ADDRESS = f"https://repo1.maven.org/maven2/org/apache/flink/flink-sql-connector-kafka/5.0.0-2.2/{NAME}"


class ConnectorError(Exception):
    """It cannot be fetched."""


def jar(directory):
    file = Path(directory) / NAME
    if not file.exists():
        partly = file.with_suffix(".part")
        try:
            with urllib.request.urlopen(ADDRESS, timeout=120) as answer, open(partly, "wb") as to:
                shutil.copyfileobj(answer, to)
        except (urllib.error.URLError, OSError) as error:
            raise ConnectorError(f"{ADDRESS} cannot be fetched: {error}") from error
        partly.rename(file)
    return file
