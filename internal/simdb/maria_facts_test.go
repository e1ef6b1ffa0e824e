package simdb

import (
	"slices"
	"testing"

	"github.com/troth-tx/troth/internal/dbtest"
)

// Servers of their own, since crashes and counters belong to a whole server.
const (
	mariaFactsServer  = 10
	mariaRandomServer = 11
)

// mariaFacts are what databases.md and testing.md say of MariaDB, each as steps
// whose answers must be the real server's.
var mariaFacts = []struct{ name, script string }{
	{"states", `
		1 XA START 'a','b',7
		1 XA START 'c'
		1 BEGIN
		1 COMMIT
		1 ROLLBACK
		1 SAVEPOINT s
		1 ROLLBACK TO s
		1 RELEASE SAVEPOINT s
		1 RELEASE SAVEPOINT s
		1 ROLLBACK TO nix
		1 SET autocommit=1
		1 SET SESSION autocommit=0
		1 SET TRANSACTION ISOLATION LEVEL READ COMMITTED
		1 XA PREPARE 'a','b'
		1 XA COMMIT 'a','b'
		1 XA COMMIT 'a','b' ONE PHASE
		1 XA ROLLBACK 'a','b'
		1 XA COMMIT 'z'
		1 XA ROLLBACK 'z'
		1 XA PREPARE 'z'
		1 XA END 'z'
		1 XA RECOVER
		2 XA COMMIT 'a','b'
		2 XA ROLLBACK 'a','b'
		2 XA PREPARE 'a','b'
		2 XA END 'a','b'
		2 XA START 'a','b'
		1 XA END 'a','b'
		1 XA END 'a','b'
		1 SELECT id FROM t
		1 UPDATE t SET v=1
		1 XA START 'a','b'
		1 XA START 'c'
		1 BEGIN
		1 COMMIT
		1 SAVEPOINT x
		1 SELECT 1
		1 XA RECOVER
		1 XA COMMIT 'a','b'
		1 XA COMMIT 'z'
		1 XA PREPARE 'a','b',9
		1 XA PREPARE 'a','b'
		1 XA END 'a','b'
		1 XA START 'a','b'
		1 XA START 'c'
		1 BEGIN
		1 COMMIT
		1 ROLLBACK
		1 SAVEPOINT x
		1 SELECT id FROM t
		1 SELECT 1
		1 SET autocommit = 0
		1 SELECT @@autocommit
		1 INSERT INTO t VALUES (9,9)
		1 XA COMMIT 'z'
		1 XA ROLLBACK 'z'
		1 XA RECOVER
		1 XA COMMIT 'a','b' ONE PHASE
		1 XA COMMIT 'a','b'
		1 XA COMMIT 'a','b'
		1 SELECT @@autocommit
		1 XA RECOVER
	`},
	{"savepoints outlive XA PREPARE", `
		1 XA START 'a'
		1 SAVEPOINT x
		1 SAVEPOINT y
		1 XA END 'a'
		1 RELEASE SAVEPOINT y
		1 XA PREPARE 'a'
		1 ROLLBACK TO SAVEPOINT x
		1 RELEASE SAVEPOINT x
		1 ROLLBACK TO SAVEPOINT y
		1 XA COMMIT 'a'
		1 ROLLBACK TO SAVEPOINT x
	`},
	{"a refused statement takes nothing back", `
		1 XA START 'a'
		1 UPDATE t SET v=1 WHERE id=1
		1 XA END 'a'
		1 SELECT * FROM t
		1 UPDATE t SET v=2 WHERE id=1
		1 XA PREPARE 'a'
		1 SELECT * FROM t
		1 XA COMMIT 'a'
		1 SELECT * FROM t
	`},
	{"outside", `
		1 BEGIN
		1 XA START 'a'
		1 XA COMMIT 'a'
		1 XA ROLLBACK 'a'
		1 XA END 'a'
		1 XA PREPARE 'a'
		1 UPDATE t SET v=1 WHERE id=1
		1 XA START 'a'
		1 XA COMMIT 'a'
		1 COMMIT
		1 SET autocommit=0
		1 XA START 'a'
		1 XA END 'a'
		1 XA COMMIT 'zz'
		1 XA ROLLBACK 'a'
		1 XA COMMIT 'zz'
		1 XA ROLLBACK 'zz'
		1 SET autocommit=1
		1 XA COMMIT 'zz'
		1 XA START ''
		1 XA START 'x', 'y', 3000000000
		1 XA START X'41',X'42',1414680404
		1 XA END X'41',X'42',1414680404
		1 XA COMMIT X'41',X'42',1414680404 ONE PHASE
		1 XA START 'q' JOIN
	`},
	{"F6", `
		1 XA START 'a'
		1 UPDATE t SET v=1 WHERE id=1
		1 XA END 'a'
		1 XA PREPARE 'a'
		2 XA RECOVER
		2 XA COMMIT 'a'
		2 XA ROLLBACK 'a'
		2 UPDATE t SET v=2 WHERE id=1
		kill 1
		3 XA RECOVER
		3 XA COMMIT 'a'
		3 XA COMMIT 'a'
		3 SELECT * FROM t WHERE id=1
	`},
	{"F7 lock only", `
		1 XA START 'a'
		1 SELECT * FROM t WHERE id=1 FOR UPDATE
		1 XA END 'a'
		1 XA PREPARE 'a'
		2 UPDATE t SET v=2 WHERE id=1
		close 1
		3 XA RECOVER
		3 XA COMMIT 'a'
		3 XA COMMIT 'a'
	`},
	{"F7 empty", `
		1 XA START 'a'
		1 XA END 'a'
		1 XA PREPARE 'a'
		3 XA START 'a'
		close 1
		3 XA RECOVER
		3 XA START 'a'
		3 XA ROLLBACK 'a'
		3 XA ROLLBACK 'a'
	`},
	{"F7 empty commit by self", `
		1 XA START 'a'
		1 UPDATE t SET v=10 WHERE id=1
		1 XA END 'a'
		1 XA PREPARE 'a'
		1 XA COMMIT 'a'
		1 XA START 'a'
		1 UPDATE t SET v=10 WHERE id=1
		1 XA END 'a'
		1 XA PREPARE 'a'
		crash
		1 XA RECOVER
	`},
	{"lock only and one write", `
		1 XA START 'a'
		1 SELECT * FROM t WHERE id=1 FOR UPDATE
		1 SELECT * FROM t WHERE id=2 LOCK IN SHARE MODE
		1 UPDATE t SET v=3 WHERE id=3
		1 UPDATE t SET v=50 WHERE id=5
		1 UPDATE t SET v=50 WHERE id=4
		1 XA END 'a'
		1 XA PREPARE 'a'
		2 SET innodb_lock_wait_timeout=0
		2 UPDATE t SET v=v+1 WHERE id=1
		2 UPDATE t SET v=v+1 WHERE id=2
		2 UPDATE t SET v=v+1 WHERE id=3
		2 UPDATE t SET v=v+1 WHERE id=5
		2 INSERT INTO t VALUES (4,4)
		2 DELETE FROM t WHERE id=4
		close 1
		2 UPDATE t SET v=v+1 WHERE id=1
		2 UPDATE t SET v=v+1 WHERE id=2
		2 UPDATE t SET v=v+1 WHERE id=3
		2 UPDATE t SET v=v+1 WHERE id=5
		2 INSERT INTO t VALUES (4,4)
		2 DELETE FROM t WHERE id=4
		crash
		2 SET innodb_lock_wait_timeout=0
		2 XA RECOVER
		2 UPDATE t SET v=v+1 WHERE id=1
		2 UPDATE t SET v=v+1 WHERE id=2
		2 UPDATE t SET v=v+1 WHERE id=3
		2 UPDATE t SET v=v+1 WHERE id=5
		2 INSERT INTO t VALUES (4,4)
		2 XA COMMIT 'a'
		2 SELECT * FROM t
	`},
	{"write undone by savepoint", `
		1 XA START 'a'
		1 SAVEPOINT s
		1 UPDATE t SET v=99 WHERE id=1
		1 ROLLBACK TO s
		1 XA END 'a'
		1 XA PREPARE 'a'
		2 SET innodb_lock_wait_timeout=0
		2 UPDATE t SET v=98 WHERE id=1
		close 1
		2 UPDATE t SET v=98 WHERE id=1
		2 XA RECOVER
		2 XA COMMIT 'a'
	`},
	{"write undone by savepoint, own commit", `
		1 XA START 'a'
		1 SAVEPOINT s
		1 UPDATE t SET v=99 WHERE id=1
		1 ROLLBACK TO s
		1 XA END 'a'
		1 XA PREPARE 'a'
		crash
		2 XA RECOVER
		2 XA COMMIT 'a'
	`},
	{"failed statement only", `
		1 XA START 'a'
		1 INSERT INTO t VALUES (1,1)
		1 XA END 'a'
		1 XA PREPARE 'a'
		close 1
		2 XA RECOVER
		2 XA COMMIT 'a'
	`},
	{"change and change back", `
		1 XA START 'a'
		1 UPDATE t SET v=99 WHERE id=1
		1 UPDATE t SET v=10 WHERE id=1
		1 XA END 'a'
		1 XA PREPARE 'a'
		close 1
		2 XA RECOVER
		2 XA COMMIT 'a'
	`},
	{"insert and delete", `
		1 XA START 'a'
		1 INSERT INTO t VALUES (8,8)
		1 DELETE FROM t WHERE id=8
		1 XA END 'a'
		1 XA PREPARE 'a'
		close 1
		2 XA RECOVER
		2 XA COMMIT 'a'
	`},
	{"detach active", `
		1 XA START 'a'
		1 UPDATE t SET v=99 WHERE id=1
		close 1
		2 XA RECOVER
		2 XA COMMIT 'a'
		2 SELECT * FROM t WHERE id=1
	`},
	{"F11 deadlock", `
		1 XA START 'a'
		1 UPDATE t SET v=99 WHERE id=1
		2 XA START 'b'
		2 UPDATE t SET v=99 WHERE id=2
		1 UPDATE t SET v=98 WHERE id=2
		2 UPDATE t SET v=98 WHERE id=1
		2 SELECT 1
		2 SELECT * FROM t
		2 SAVEPOINT x
		2 XA END 'b'
		2 XA PREPARE 'b'
		2 XA START 'b'
		2 XA COMMIT 'b'
		2 XA COMMIT 'b'
		2 XA START 'b'
	`},
	{"F11 deadlock rollback", `
		1 XA START 'a'
		1 UPDATE t SET v=99 WHERE id=1
		2 XA START 'b'
		2 UPDATE t SET v=99 WHERE id=2
		1 UPDATE t SET v=98 WHERE id=2
		2 UPDATE t SET v=98 WHERE id=1
		3 XA START 'b'
		3 XA COMMIT 'b'
		2 XA COMMIT 'z'
		2 XA COMMIT 'b' ONE PHASE
		2 XA ROLLBACK 'b'
	`},
	{"F11 deadlock rollback 2", `
		1 XA START 'a'
		1 UPDATE t SET v=99 WHERE id=1
		2 XA START 'b'
		2 UPDATE t SET v=99 WHERE id=2
		1 UPDATE t SET v=98 WHERE id=2
		2 UPDATE t SET v=98 WHERE id=1
		2 XA ROLLBACK 'b'
		2 XA ROLLBACK 'b'
	`},
	{"F11 dup", `
		1 XA START 'a'
		1 UPDATE t SET v=99 WHERE id=1
		1 INSERT INTO t VALUES (1,1)
		1 INSERT INTO t VALUES (6,1),(1,1)
		1 SELECT * FROM t
		1 XA END 'a'
		1 XA PREPARE 'a'
		1 XA COMMIT 'a'
	`},
	{"F11 timeout", `
		1 XA START 'a'
		1 UPDATE t SET v=99 WHERE id=1
		2 XA START 'b'
		2 UPDATE t SET v=99 WHERE id=2
		2 SET innodb_lock_wait_timeout=0
		2 UPDATE t SET v=99 WHERE id=1
		2 SET innodb_lock_wait_timeout=1
		2 UPDATE t SET v=97 WHERE id=1
		expire 2
		2 SELECT * FROM t
		2 XA END 'b'
		2 XA COMMIT 'b' ONE PHASE
		3 SELECT * FROM t
	`},
	{"row locks", `
		1 BEGIN
		1 UPDATE t SET v=v+1 WHERE id=1
		2 UPDATE t SET v=v+1 WHERE id=1
		3 UPDATE t SET v=v+1 WHERE id=1
		1 COMMIT
		1 SELECT * FROM t
	`},
	{"reads: snapshot", `
		1 BEGIN
		1 SELECT v FROM t WHERE id=1
		2 UPDATE t SET v=v+1 WHERE id=1
		1 SELECT v FROM t WHERE id=1
		1 UPDATE t SET v=v+1 WHERE id=1
		1 SELECT v FROM t WHERE id=1
		1 SELECT v FROM t WHERE id=1 FOR UPDATE
		1 COMMIT
	`},
	{"snapshot taken at first consistent read not at update of another row", `
		1 BEGIN
		1 UPDATE t SET v=v+1 WHERE id=2
		2 UPDATE t SET v=v+1 WHERE id=1
		1 SELECT v FROM t WHERE id=1
		1 COMMIT
	`},
	{"unchanged value", `
		1 UPDATE t SET v=10 WHERE id=1
		1 UPDATE t SET v=v WHERE id=1
		1 UPDATE t SET v=11 WHERE id=77
	`},
	{"insert waits on insert, commit", `
		1 BEGIN
		1 INSERT INTO t VALUES (4,40)
		2 INSERT INTO t VALUES (4,41)
		1 COMMIT
	`},
	{"insert waits on insert, rollback", `
		1 BEGIN
		1 INSERT INTO t VALUES (4,40)
		2 INSERT INTO t VALUES (4,41)
		1 ROLLBACK
	`},
	{"dup key", `
		1 BEGIN
		1 INSERT INTO t VALUES (1,40)
		2 UPDATE t SET v=0 WHERE id=1
		1 COMMIT
	`},
	{"dup key in autocommit", `
		1 INSERT INTO t VALUES (1,40)
		2 UPDATE t SET v=0 WHERE id=1
	`},
	{"deleted, uncommitted; insert", `
		1 BEGIN
		1 DELETE FROM t WHERE id=2
		2 INSERT INTO t VALUES (2,22)
		1 COMMIT
		1 SELECT * FROM t
	`},
	{"gap lock: update of a missing row", `
		1 BEGIN
		1 UPDATE t SET v=0 WHERE id=4
		2 INSERT INTO t VALUES (4,44)
		3 UPDATE t SET v=0 WHERE id=5
		3 UPDATE t SET v=0 WHERE id=3
		1 COMMIT
	`},
	{"select for update of missing row", `
		1 BEGIN
		1 SELECT * FROM t WHERE id=100 FOR UPDATE
		2 INSERT INTO t VALUES (200,44)
		1 COMMIT
	`},
	{"own delete and insert", `
		1 BEGIN
		1 DELETE FROM t WHERE id=2
		1 INSERT INTO t VALUES (2,22)
		1 SELECT * FROM t WHERE id=2
		1 ROLLBACK
		1 SELECT * FROM t WHERE id=2
	`},
	{"update all", `
		1 BEGIN
		1 UPDATE t SET v=v+1
		2 UPDATE t SET v=v+1 WHERE id=3
		3 INSERT INTO t VALUES (4,4)
		4 INSERT INTO t VALUES (100,4)
		1 COMMIT
	`},
	{"undone by savepoint", `
		1 XA START 'a'
		1 SAVEPOINT s
		1 UPDATE t SET v=99 WHERE id=1
		1 ROLLBACK TO s
		2 SET innodb_lock_wait_timeout=0
		2 UPDATE t SET v=98 WHERE id=1
		1 UPDATE t SET v=98 WHERE id=3
		2 UPDATE t SET v=97 WHERE id=1
		1 XA END 'a'
		1 XA PREPARE 'a'
		2 UPDATE t SET v=96 WHERE id=1
	`},
	{"undone by savepoint with earlier write", `
		1 XA START 'a'
		1 UPDATE t SET v=98 WHERE id=3
		1 SAVEPOINT s
		1 UPDATE t SET v=99 WHERE id=1
		1 INSERT INTO t VALUES (4,4)
		1 DELETE FROM t WHERE id=2
		1 ROLLBACK TO s
		2 SET innodb_lock_wait_timeout=0
		2 UPDATE t SET v=98 WHERE id=1
		2 UPDATE t SET v=98 WHERE id=2
		2 INSERT INTO t VALUES (4,4)
		1 XA END 'a'
		1 XA PREPARE 'a'
		2 UPDATE t SET v=96 WHERE id=1
		2 UPDATE t SET v=98 WHERE id=2
		2 INSERT INTO t VALUES (4,4)
	`},
	{"insert failing leaves what locks", `
		1 BEGIN
		1 INSERT INTO t VALUES (4,1),(1,1)
		2 SET innodb_lock_wait_timeout=0
		2 INSERT INTO t VALUES (4,1)
		2 SELECT * FROM t WHERE id=1 LOCK IN SHARE MODE
		2 UPDATE t SET v=4 WHERE id=4
		1 COMMIT
		2 SELECT * FROM t
	`},
	{"savepoint semantics", `
		1 SAVEPOINT x
		1 ROLLBACK TO x
		1 RELEASE SAVEPOINT x
		1 BEGIN
		1 SAVEPOINT x
		1 INSERT INTO t VALUES (7,7)
		1 SAVEPOINT y
		1 INSERT INTO t VALUES (8,7)
		1 SAVEPOINT x
		1 ROLLBACK TO y
		1 ROLLBACK TO x
		1 ROLLBACK TO y
		1 RELEASE SAVEPOINT y
		1 ROLLBACK TO y
		1 COMMIT
		1 SELECT * FROM t
	`},
	{"begin in begin commits", `
		1 BEGIN
		1 UPDATE t SET v=0 WHERE id=1
		1 BEGIN
		2 SELECT * FROM t WHERE id=1
		1 ROLLBACK
		1 COMMIT
		1 ROLLBACK
	`},
	{"autocommit=0", `
		1 SET autocommit=0
		1 UPDATE t SET v=0 WHERE id=1
		2 SELECT * FROM t WHERE id=1
		1 SET autocommit=1
		2 SELECT * FROM t WHERE id=1
		1 SET autocommit=0
		1 UPDATE t SET v=5 WHERE id=1
		close 1
		2 SELECT * FROM t WHERE id=1
	`},
	{"ddl commits", `
		1 BEGIN
		1 UPDATE t SET v=0 WHERE id=1
		1 CREATE TABLE IF NOT EXISTS t (i INT)
		2 SELECT * FROM t WHERE id=1
		1 CREATE TABLE t (i INT)
		1 INSERT INTO nix VALUES (1)
		1 SELECT * FROM nix
		1 KILL 99999
		1 SELECT CONNECTION_ID() > 0, @@SESSION.autocommit
		1 KILL CONNECTION CONNECTION_ID()
		1 SELECT 1
	`},
	{"dirty reads", `
		1 BEGIN
		1 UPDATE t SET v=0 WHERE id=1
		1 INSERT INTO t VALUES (6,6)
		1 DELETE FROM t WHERE id=2
		2 SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED
		2 SELECT * FROM t
		2 SELECT * FROM t
		2 SET TRANSACTION ISOLATION LEVEL READ COMMITTED
		2 BEGIN
		2 SELECT * FROM t
		1 COMMIT
		2 SELECT * FROM t
		2 COMMIT
		2 SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED
		2 BEGIN
		2 UPDATE t SET v=0 WHERE id=77
		1 INSERT INTO t VALUES (77,1)
		2 COMMIT
	`},
	{"serializable", `
		2 SET TRANSACTION ISOLATION LEVEL SERIALIZABLE
		2 XA START 's'
		2 SELECT * FROM t WHERE id=1
		1 SET innodb_lock_wait_timeout=0
		1 UPDATE t SET v=0 WHERE id=1
		2 XA END 's'
		2 XA PREPARE 's'
		1 UPDATE t SET v=0 WHERE id=1
		2 XA COMMIT 's'
		1 UPDATE t SET v=0 WHERE id=1
	`},
	{"one phase of a detached", `
		1 XA START 'a'
		1 UPDATE t SET v=1 WHERE id=1
		1 XA END 'a'
		1 XA PREPARE 'a'
		close 1
		2 XA COMMIT 'a' ONE PHASE
		2 XA RECOVER
		2 BEGIN
		2 XA COMMIT 'a'
		2 COMMIT
		2 XA PREPARE 'a'
		2 XA END 'a'
		2 XA ROLLBACK 'a'
		2 SELECT * FROM t
	`},
	{"undone joined", `
		1 XA START 'a'
		1 SELECT * FROM t WHERE id=2
		1 SAVEPOINT s
		1 UPDATE t SET v=99 WHERE id=1
		1 ROLLBACK TO s
		1 XA END 'a'
		1 XA PREPARE 'a'
		2 SET innodb_lock_wait_timeout=0
		2 UPDATE t SET v=96 WHERE id=1
		close 1
		2 UPDATE t SET v=96 WHERE id=1
		2 XA RECOVER
		2 XA COMMIT 'a'
	`},
	{"undone joined crash", `
		1 XA START 'a'
		1 SELECT * FROM t WHERE id=2
		1 SAVEPOINT s
		1 UPDATE t SET v=99 WHERE id=1
		1 ROLLBACK TO s
		1 XA END 'a'
		1 XA PREPARE 'a'
		crash
		2 XA RECOVER
		2 UPDATE t SET v=96 WHERE id=1
		2 XA COMMIT 'a'
	`},
	{"failed insert of 2, crash", `
		1 XA START 'a'
		1 INSERT INTO t VALUES (6,1),(1,1)
		1 XA END 'a'
		1 XA PREPARE 'a'
		crash
		2 XA RECOVER
		2 XA COMMIT 'a'
	`},
	{"failed insert of 2, close, crash", `
		1 XA START 'a'
		1 INSERT INTO t VALUES (6,1),(1,1)
		1 XA END 'a'
		1 XA PREPARE 'a'
		close 1
		crash
		2 XA RECOVER
		2 XA COMMIT 'a'
	`},
	{"failed insert of 2", `
		1 XA START 'a'
		1 INSERT INTO t VALUES (6,1),(1,1)
		1 XA END 'a'
		1 XA PREPARE 'a'
		close 1
		2 XA RECOVER
		2 XA COMMIT 'a'
	`},
	{"rollback only statements", `
		1 XA START 'a'
		1 UPDATE t SET v=99 WHERE id=1
		2 XA START 'b'
		2 UPDATE t SET v=99 WHERE id=2
		1 UPDATE t SET v=98 WHERE id=2
		2 UPDATE t SET v=98 WHERE id=1
		2 SAVEPOINT x
		2 ROLLBACK TO x
		2 RELEASE SAVEPOINT x
		2 BEGIN
		2 COMMIT
		2 ROLLBACK
		2 SELECT * FROM t FOR UPDATE
		2 SET autocommit=0
		2 XA RECOVER
		2 XA COMMIT 'zz'
		2 XA ROLLBACK 'zz'
		2 CREATE TABLE x (i INT)
		2 XA ROLLBACK 'b'
		2 SELECT @@autocommit
	`},
	{"weights", `
		1 BEGIN
		1 UPDATE t SET v=99 WHERE id=1
		2 BEGIN
		2 UPDATE t SET v=99 WHERE id=2
		2 UPDATE t SET v=99 WHERE id=3
		1 UPDATE t SET v=98 WHERE id=2
		2 UPDATE t SET v=98 WHERE id=1
	`},
	{"weights: lock only vs write", `
		1 BEGIN
		1 SELECT * FROM t WHERE id=1 FOR UPDATE
		2 BEGIN
		2 UPDATE t SET v=99 WHERE id=2
		1 UPDATE t SET v=98 WHERE id=2
		2 UPDATE t SET v=98 WHERE id=1
	`},
	{"weights: more locks", `
		1 BEGIN
		1 UPDATE t SET v=99 WHERE id=1
		2 BEGIN
		2 UPDATE t SET v=99 WHERE id=2
		2 SELECT * FROM t WHERE id=3 FOR UPDATE
		1 UPDATE t SET v=98 WHERE id=2
		2 UPDATE t SET v=98 WHERE id=1
	`},
	{"weights: shared locks", `
		1 BEGIN
		1 UPDATE t SET v=99 WHERE id=1
		2 BEGIN
		2 UPDATE t SET v=99 WHERE id=2
		2 SELECT * FROM t WHERE id=3 LOCK IN SHARE MODE
		1 UPDATE t SET v=98 WHERE id=2
		2 UPDATE t SET v=98 WHERE id=1
	`},
	{"insert: weights", `
		1 BEGIN
		1 INSERT INTO t VALUES (11,1)
		2 BEGIN
		2 INSERT INTO t VALUES (12,1)
		1 INSERT INTO t VALUES (12,1)
		2 INSERT INTO t VALUES (11,1)
	`},
	{"insert vs update weights", `
		1 BEGIN
		1 INSERT INTO t VALUES (11,1)
		2 BEGIN
		2 UPDATE t SET v=7 WHERE id=2
		1 UPDATE t SET v=7 WHERE id=2
		2 INSERT INTO t VALUES (11,1)
	`},
	{"upgrade", `
		1 BEGIN
		1 SELECT * FROM t WHERE id=1 LOCK IN SHARE MODE
		2 BEGIN
		2 SELECT * FROM t WHERE id=1 LOCK IN SHARE MODE
		1 UPDATE t SET v=1 WHERE id=1
		2 UPDATE t SET v=1 WHERE id=1
	`},
	{"prepared is waited for in a cycle with a session", `
		1 XA START 'a'
		1 UPDATE t SET v=99 WHERE id=1
		2 BEGIN
		2 UPDATE t SET v=99 WHERE id=2
		2 UPDATE t SET v=99 WHERE id=1
		kill 2
		1 XA END 'a'
		1 XA ROLLBACK 'a'
	`},
	{"S queue behind X", `
		1 BEGIN
		1 SELECT * FROM t WHERE id=1 LOCK IN SHARE MODE
		2 UPDATE t SET v=5 WHERE id=1
		3 SELECT * FROM t WHERE id=1 LOCK IN SHARE MODE
		1 COMMIT
	`},
	{"dup wait then S", `
		1 XA START 'a'
		1 INSERT INTO t VALUES (11,1)
		2 XA START 'b'
		2 INSERT INTO t VALUES (11,1)
		1 XA END 'a'
		1 XA COMMIT 'a' ONE PHASE
		3 SET innodb_lock_wait_timeout=0
		3 UPDATE t SET v=3 WHERE id=11
		3 SELECT * FROM t WHERE id=11 LOCK IN SHARE MODE
		3 INSERT INTO t VALUES (10,1)
		3 INSERT INTO t VALUES (12,1)
	`},
}

func TestMariaFacts(t *testing.T) {
	t.Parallel()
	real := newMariaReal(t, dbtest.SharedMariaDB(t, mariaFactsServer))
	for _, fact := range slices.Concat(mariaFacts, mariaGaps) {
		t.Run(fact.name, func(t *testing.T) {
			p := newMariaPair(t, real)
			p.run(fact.script)
			p.compareState()
		})
	}
}
