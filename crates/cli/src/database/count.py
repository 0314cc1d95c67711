"""Count the rows of every table of a SQLite database.

Run by `python -c` as the service user: PATH. One JSON object goes to stdout.
"""

import json
import sqlite3
import sys
import urllib.parse

connection = sqlite3.connect("file:%s?mode=ro" % urllib.parse.quote(sys.argv[1]), uri=True)
names = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table'")]
quoted = {name: '"%s"' % name.replace('"', '""') for name in names}
print(json.dumps({name: connection.execute("select count(*) from %s" % quoted[name]).fetchone()[0] for name in names}))
