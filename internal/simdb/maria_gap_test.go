package simdb

// mariaGaps are facts about gaps, and about records that come and go.
var mariaGaps = []struct{ name, script string }{
	{"a deleted record is locked without its gap until it is purged", `
		1 DELETE FROM t WHERE id=2
		2 BEGIN
		2 SELECT v FROM t WHERE id=2 LOCK IN SHARE MODE
		3 INSERT INTO t VALUES (2,1)
		kill 3
		4 UPDATE t SET v=0 WHERE id=3
		purge
		3 INSERT INTO t VALUES (2,1)
		4 UPDATE t SET v=0 WHERE id=3
		2 COMMIT
	`},
	{"an insertion takes over a deleted record", `
		1 DELETE FROM t WHERE id=2
		1 BEGIN
		1 SELECT v FROM t WHERE id=3 FOR UPDATE
		2 INSERT INTO t VALUES (2,1)
		1 COMMIT
		2 DELETE FROM t WHERE id=2
		purge
		1 BEGIN
		1 SELECT v FROM t WHERE id=2 FOR UPDATE
		2 INSERT INTO t VALUES (2,1)
		1 COMMIT
	`},
	{"a deleted record is locked without its gap", `
		1 DELETE FROM t WHERE id=5
		2 BEGIN
		2 UPDATE t SET v=0 WHERE id=5
		3 INSERT INTO t VALUES (4,1)
		1 BEGIN
		1 DELETE FROM t WHERE id=3
		4 UPDATE t SET v=0 WHERE id=3
		1 COMMIT
		2 COMMIT
	`},
	{"a shared lock, and one for all that waits for it", `
		1 BEGIN
		1 SELECT v FROM t WHERE id=5 LOCK IN SHARE MODE
		2 UPDATE t SET v=0
		1 INSERT INTO t VALUES (4,1)
	`},
	{"below REPEATABLE READ a deleted record is not waited for", `
		1 INSERT INTO t VALUES (11,1)
		1 DELETE FROM t WHERE id=11
		1 BEGIN
		1 INSERT INTO t VALUES (11,7),(3,7)
		2 INSERT INTO t VALUES (11,7)
		3 SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED
		3 UPDATE t SET v=v+1 WHERE id=11
		1 COMMIT
	`},
	{"below REPEATABLE READ a deleted record is not locked", `
		1 DELETE FROM t WHERE id=2
		2 SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED
		2 BEGIN
		2 SELECT v FROM t WHERE id=2 FOR UPDATE
		3 INSERT INTO t VALUES (2,1)
		2 COMMIT
	`},
	{"who waited for an insertion that is rolled back has its gap", `
		1 BEGIN
		1 INSERT INTO t VALUES (11,1)
		2 BEGIN
		2 UPDATE t SET v=0 WHERE id=11
		1 ROLLBACK
		3 INSERT INTO t VALUES (12,1)
		2 COMMIT
	`},
	{"a new record divides a gap that is locked", `
		1 BEGIN
		1 SELECT v FROM t WHERE id=12 FOR UPDATE
		1 INSERT INTO t VALUES (12,1)
		2 INSERT INTO t VALUES (11,1)
		3 INSERT INTO t VALUES (13,1)
		1 COMMIT
	`},
	{"a record is deleted by whom it was waited for", `
		1 BEGIN
		1 UPDATE t SET v=0 WHERE id=5
		2 BEGIN
		2 UPDATE t SET v=1 WHERE id=5
		4 UPDATE t SET v=1 WHERE id=5
		1 DELETE FROM t WHERE id=5
		1 COMMIT
		3 INSERT INTO t VALUES (4,1)
		2 COMMIT
	`},
	{"a scan over a record that is locked", `
		1 BEGIN
		1 UPDATE t SET v=0 WHERE id=5
		1 UPDATE t SET v=v+1
		2 INSERT INTO t VALUES (4,1)
		1 COMMIT
	`},
	{"a record that one has inserted and deleted", `
		1 BEGIN
		1 INSERT INTO t VALUES (13,1)
		1 DELETE FROM t WHERE id=13
		1 UPDATE t SET v=v+1 WHERE id=13
		2 INSERT INTO t VALUES (12,1)
		3 INSERT INTO t VALUES (13,1)
		1 COMMIT
	`},
	{"a scan over one's own insertion", `
		1 BEGIN
		1 INSERT INTO t VALUES (13,1)
		1 UPDATE t SET v=v+1
		2 INSERT INTO t VALUES (12,1)
		3 INSERT INTO t VALUES (14,1)
		1 COMMIT
	`},
	{"who has deleted a record does not lock its gap", `
		2 BEGIN
		2 DELETE FROM t WHERE id=2
		1 UPDATE t SET v=0 WHERE id=2
		2 UPDATE t SET v=v WHERE id=2
		2 DELETE FROM t WHERE id=5
		2 UPDATE t SET v=v WHERE id=5
		3 INSERT INTO t VALUES (4,1)
		2 COMMIT
	`},
	{"weights: a gap of a record that it has deleted", `
		3 BEGIN
		3 SELECT v FROM t WHERE id=3 FOR UPDATE
		3 SELECT v FROM t WHERE id=2 LOCK IN SHARE MODE
		3 UPDATE t SET v=0 WHERE id=12
		4 BEGIN
		4 DELETE FROM t WHERE id=1
		4 UPDATE t SET v=0 WHERE id=1
		4 INSERT INTO t VALUES (13,7)
		3 UPDATE t SET v=0 WHERE id=1
	`},
	{"weights: without the gap", `
		3 BEGIN
		3 SELECT v FROM t WHERE id=3 FOR UPDATE
		3 SELECT v FROM t WHERE id=2 LOCK IN SHARE MODE
		3 UPDATE t SET v=0 WHERE id=12
		4 BEGIN
		4 SELECT v FROM t WHERE id=2 LOCK IN SHARE MODE
		4 DELETE FROM t WHERE id=1
		4 INSERT INTO t VALUES (13,7)
		3 UPDATE t SET v=0 WHERE id=1
	`},
	{"weights: a lock that was waited for", `
		3 BEGIN
		3 SELECT v FROM t WHERE id=3 FOR UPDATE
		3 SELECT v FROM t WHERE id=2 LOCK IN SHARE MODE
		3 UPDATE t SET v=0 WHERE id=12
		4 BEGIN
		4 SELECT v FROM t WHERE id=2 LOCK IN SHARE MODE
		4 DELETE FROM t WHERE id=1
		2 UPDATE t SET v=0 WHERE id=1
		4 INSERT INTO t VALUES (13,7)
		3 UPDATE t SET v=0 WHERE id=1
	`},
	{"XA PREPARE gives up gaps", `
		1 XA START 'a'
		1 UPDATE t SET v=0 WHERE id=12
		1 UPDATE t SET v=0 WHERE id=1
		2 INSERT INTO t VALUES (11,1)
		1 XA END 'a'
		1 XA PREPARE 'a'
		3 INSERT INTO t VALUES (13,1)
	`},
	{"a cycle of three: the last, if they are equal", `
		1 BEGIN
		1 UPDATE t SET v=99 WHERE id=1
		2 BEGIN
		2 UPDATE t SET v=99 WHERE id=2
		3 BEGIN
		3 UPDATE t SET v=99 WHERE id=3
		1 UPDATE t SET v=98 WHERE id=2
		2 UPDATE t SET v=98 WHERE id=3
		3 UPDATE t SET v=98 WHERE id=1
	`},
	{"XA PREPARE lets a cycle close, and nobody looks", `
		2 XA START 'a'
		2 UPDATE t SET v=0 WHERE id=11
		2 UPDATE t SET v=0 WHERE id=5
		1 BEGIN
		1 DELETE FROM t WHERE id=12
		3 BEGIN
		3 SELECT v FROM t WHERE id=1 FOR UPDATE
		1 UPDATE t SET v=0 WHERE id=1
		3 INSERT INTO t VALUES (13,7)
		2 XA END 'a'
		2 XA PREPARE 'a'
		4 SELECT 1
		4 UPDATE t SET v=0 WHERE id=2
	`},
	{"a branch that a crash brought back is waited for", `
		1 XA START 'a'
		1 INSERT INTO t VALUES (13,7)
		1 XA END 'a'
		1 XA PREPARE 'a'
		crash
		2 INSERT INTO t VALUES (13,7)
		3 XA COMMIT 'a'
	`},
	{"two insertions into a gap that both have", `
		1 BEGIN
		1 SELECT v FROM t WHERE id=11 FOR UPDATE
		2 BEGIN
		2 SELECT v FROM t WHERE id=12 FOR UPDATE
		1 INSERT INTO t VALUES (11,1)
		2 INSERT INTO t VALUES (12,1)
	`},
	{"one insertion of several that waited", `
		1 BEGIN
		1 INSERT INTO t VALUES (11,1)
		2 INSERT INTO t VALUES (11,2)
		3 INSERT INTO t VALUES (11,2)
		4 INSERT INTO t VALUES (11,2)
		1 ROLLBACK
	`},
}
