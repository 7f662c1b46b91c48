#!/usr/bin/env python3
# What: write-ahead log, 4 writing processes; kill -9 of the client while they write; integrity_check, every acknowledged commit is there, writing goes on
# Needs: python3=python3
# Version: python3 -c 'import sqlite3; print("SQLite", sqlite3.sqlite_version)'
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib"))
import sqlite_writers

sqlite_writers.crash_and_recover(sys.argv[1], "wal")
