-- Written now and then, to find out whether writing works.
CREATE TABLE probe (
    id    INTEGER PRIMARY KEY,
    count INTEGER NOT NULL
);
