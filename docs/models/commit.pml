/* The commit protocol, for Spin: what protocol.go, drive.go, recovery.go, forget.go
 * and upkeep.go do, with the databases and the network around it. One transaction,
 * one coordinator, NR recovering processes, everything at any time.
 *
 *	p[0]           the home participant: its commit carries the decision (REG=HOME)
 *	p[1] … p[NV]   the participants that vote, at most two
 *	row            the decision: a row of the home's table, or a register's record
 *
 * NV=0 is a transaction of one writer: p[0] commits in one phase, and REG=HOME leaves
 * a record (docs/decisions/0004).
 *
 * The coordinator may crash before every step. It may also be stopped for any time
 * between two steps and go on: that is an interleaving like others. No recoverer
 * knows whether it lives.
 *
 * A request to a branch or a register ends in one of four ways:
 *	a carried out, answered       b carried out, answer lost
 *	c never carried out, lost     d carried out LATER, answer lost
 * b, c, d and sessions that a server ends cost one of FAULTS.
 *
 * REG   HOME  a row in the home's own commit; abort is planted under the same key
 *       SQL   put-if-absent in a database of its own, with a floor under it
 *       FILE  a log with one owner: others read it when the owner is gone
 * HELD=1       MariaDB: a prepared branch is tied to its session, everybody else
 *              hears "unknown XID", or (rarely) an acknowledgement without effect
 * RESURRECT=1  MariaDB: an acknowledged rollback may be found prepared after a crash
 * RETURNS=1    MariaDB with a binary log: so may a one-phase commit, acknowledged or
 *              not, with its record in it (troth.OnePhaseReturns). A sole writer of such a
 *              server whose name says that a register decides votes: that is NV=1.
 *
 * The M_ switches make one mistake each, named by the rule that it breaks
 * (docs/protocol.md). docs/models/run expects that every one is found.
 *
 * States, events and effects are those of protocol.go, and so are the edges:
 * test/models compares them.
 */
#define HOME 1
#define SQL  2
#define FILE 3
#ifndef REG
#define REG HOME
#endif
#ifndef NV
#define NV 2
#endif
#ifndef NR
#define NR 1
#endif
#ifndef FAULTS
#define FAULTS 2
#endif
#ifndef HELD
#define HELD 0
#endif
#ifndef RESURRECT
#define RESURRECT 0
#endif
#ifndef RETURNS
#define RETURNS 0
#endif

mtype:state = { stateActive, statePolling, statePreparing, stateDeciding,
	stateCommitting, stateReleasing, stateCommitted, stateAborting, stateAborted };
mtype:event = { evCommit, evRollback, evPolled, evVoted, evDecided, evEnded };
mtype:effect = { efPoll, efPrepare, efDecide, efAsk, efCommit, efRollback, efRelease, efReport, efForget };

mtype:branch = { working, prepared, done, undone };
mtype:record = { nothing, commit, abort };
mtype:answer = { none, yes, no, ack, unknown, lost };
mtype:caller = { own, other };      /* on whose session a request travels */

mtype:state  st     = stateActive;
mtype:record row    = nothing;      /* the register */
mtype:record chosen = nothing;      /* ghost: the first decision that became durable */
mtype:record told   = nothing;      /* what the caller was told, if anything */

mtype:branch p[3];
bool bound[3];                      /* asked to prepare: the decision binds it */
bool held[3];                       /* HELD: prepared, and its session lives */
bool gone   = false;                /* p[0]'s session has left the server */
bool closed[3];                     /* the coordinator let go of the session */
bool acked[3];                      /* the coordinator has proof that it committed */
#if RESURRECT
bool was[3];                        /* was prepared before it was rolled back */
#endif

bool asked  = false;                /* REG=HOME: the decision is on its way to the home */
bool locked = false;                /* REG=HOME: inserted, not committed: its key is locked */
mtype:answer heard = none;          /* what the home answered */
bool lateput[2];                    /* a put of commit [0], abort [1] still travels */
mtype:effect late[3];
mtype:caller latefrom[3];

bool over   = false;                /* the coordinator crashed, stopped or finished */
bool floor  = false;                /* REG=SQL: older commits are refused */
bool aged   = false;                /* LifeMax has passed since the commit record was written */
byte deciding_pass = 0;             /* recoverers between their second list and their Decide's end */
byte faults = 0;
byte k;                             /* scratch, always 0 between steps */

#define takespart(i) (bound[i] || (i == 0 && (REG == HOME || NV == 0)))

inline check() {
	d_step {
		k = 0;
		do
		:: k <= NV ->
			assert(!(p[k] == done && chosen != commit));            /* R1 */
			assert(!(takespart(k) && p[k] == undone && chosen == commit));  /* R2, I1 */
			assert(!(takespart(k) && p[k] == undone && told == commit));    /* I2 */
			assert(!(p[k] == done && told == abort));               /* I3 */
			k++
		:: else -> break
		od;
		assert(!(told == commit && chosen != commit));              /* R1, I2 */
		assert(!(told == abort && chosen == commit));               /* R3, I3 */
		assert(!(chosen == commit && row == abort));                /* one decision, never reversed */
		k = 0
	}
}

inline write(v) {
	row = v;
	if
	:: chosen == nothing -> chosen = v
	:: else
	fi
}

/* ---- a participant carries out a request --------------------------------- */
/* A home that came back ends: its record becomes durable with it, or goes. */
inline rehomed(i) {
	if
	:: i == 0 -> locked = false;
#if REG == HOME
		if
		:: p[0] == done -> write(commit)
		:: else
		fi
#endif
	:: else
	fi
}

inline serve(i, ef, who, a) {
	if
	:: ef == efPrepare && p[i] == working ->
		if
		:: p[i] = prepared; held[i] = HELD; a = yes
		:: p[i] = undone;                       /* a statement had failed */
#ifdef M_R9_TAG_IGNORED
		   a = yes                              /* PostgreSQL answers without an error */
#else
		   a = no
#endif
		fi
	:: ef == efPrepare && p[i] != working -> a = no
	:: ef == efCommit && p[i] == prepared && (!held[i] || who == own) ->
		p[i] = done; held[i] = false; a = ack;
#if RETURNS
		rehomed(i)
#endif
	:: ef == efCommit && p[i] == prepared && held[i] && who == other ->
		if
		:: a = unknown
		:: faults < FAULTS -> faults++; a = ack /* and nothing was done */
		fi
	:: ef == efRollback && p[i] == prepared && (!held[i] || who == own) ->
		p[i] = undone; held[i] = false; a = ack;
#if RETURNS
		rehomed(i);
#endif
#if RESURRECT
		was[i] = true
#endif
	:: ef == efRollback && p[i] == working && who == own -> p[i] = undone; a = ack
	:: else -> a = unknown
	fi;
	check()
}

inline call(i, ef, who, a) {
	atomic {
		if
		:: serve(i, ef, who, a)                                                   /* a */
		:: faults < FAULTS -> faults++; serve(i, ef, who, a); a = lost            /* b */
		:: faults < FAULTS -> faults++; a = lost                                  /* c */
		:: faults < FAULTS && late[i] == 0 ->                                     /* d */
			faults++; late[i] = ef; latefrom[i] = who; a = lost
		fi
	}
}

/* Finish from a recovery session. Proof that a branch committed is what can be read
 * there (a witness row, pg_xact_status), not what the server says (R8). */
inline finish(i, ef, a, proved) {
	call(i, ef, other, a);
	atomic {
		if
		:: ef == efCommit && p[i] == done && a != lost -> proved = true
#ifdef M_R8_UNKNOWN_IS_DONE
		:: ef == efCommit && a == unknown -> proved = true
#endif
#ifdef M_R8_ACK_IS_PROOF
		:: ef == efCommit && a == ack -> proved = true
#endif
		:: else
		fi;
		a = none
	}
}

/* ---- the register -------------------------------------------------------- */
/* put-if-absent: what is stored afterwards is the answer */
inline put(v) {
	if
#ifdef M_R2_OVERWRITE
	:: true -> write(v)
#else
#ifdef M_R5_NO_FLOOR
	:: row == nothing -> write(v)
#else
	:: row == nothing && !(floor && v == commit) -> write(v)
#endif
#endif
	:: else
	fi;
	check()
}

/* What a put answers. Refused by the floor it is abort, unless the coordinator had
 * asked before and got no answer: then it is not known (errFloor). */
inline stored(d, again) {
	d = row;
	if
	:: d == nothing && floor && !again -> d = abort
	:: else
	fi
}

/* Decide: d is what the caller learns, nothing if the answer is lost. In the home's
 * table it waits for the key. Both are one step there: the database locks the key. */
inline Decide(v, n, again, intime, d) {
	if
#if RETURNS
	:: atomic { intime && locked && p[0] == prepared -> d = nothing }   /* its time is up */
#endif
	:: atomic {
#ifdef M_R2_NO_KEY
		intime ->
#else
		intime && !locked ->
#endif
		if
		:: put(v); stored(d, again)                                                      /* a */
		:: faults < FAULTS -> faults++; put(v); d = nothing                       /* b */
		:: faults < FAULTS -> faults++; d = nothing                               /* c */
#if REG != FILE
		:: faults < FAULTS && !lateput[n] -> faults++; lateput[n] = true; d = nothing  /* d */
#endif
		fi
	   }
	fi
}

/* A record may be forgotten only if nobody can plant the opposite any more: no pass
 * is between its second look and its Decide (pass.fresh), no ask is on its way. */
#ifdef M_R4_STALE_PASS
#define forgettable (row == commit && !lateput[1])
#else
#define forgettable (row == commit && !lateput[1] && deciding_pass == 0)
#endif

inline forget() {                   /* efForget, R4 */
	d_step {
		if
		:: forgettable ->
#ifndef M_R4_FORGET_UNPROVED
			assert(!(bound[1] && p[1] != done) && !(bound[2] && p[2] != done));
#endif
			row = nothing
		:: else
		fi
	}
}

/* ---- the coordinator ----------------------------------------------------- */
inline step(from, ev, to) { d_step { assert(st == from && ev != 0); st = to } }
#define crashpoint if :: true -> goto dead :: true fi
inline report(v) { atomic { told = v; check() } }        /* efReport */

/* The coordinator's own clock, which says no later than the register's that LifeMax
 * has passed (driver.ask, keepAge). */
#if defined(M_R4_KEEP_SHORT)
#define tooold false
#elif defined(M_R4_CLOCK_STARTS_LATE)
#define tooold (aged && !slept)
#else
#define tooold aged
#endif

proctype Coordinator() {
	byte i = 1;
	bool failed = false;
#ifdef M_R4_CLOCK_STARTS_LATE
	bool first = true, slept = false;
#endif
	mtype:answer a = none;
	mtype:record d = nothing;

	if
	:: step(stateActive, evCommit, statePolling)
	:: step(stateActive, evCommit, stateCommitted); goto dead        /* no branch takes part */
	:: step(stateActive, evRollback, stateAborting); goto undo
	fi;
	/* efPoll. A home that wrote nothing records the decision all the same. */
	if
#if NV > 0
	:: step(statePolling, evPolled, statePreparing)
#else
	:: step(statePolling, evPolled, stateDeciding); goto decide
#endif
	:: step(statePolling, evPolled, stateReleasing);        /* none wrote: efRelease */
	   if
	   :: step(stateReleasing, evEnded, stateCommitted)
	   :: step(stateReleasing, evEnded, stateAborted)       /* and what was read may be wrong */
	   fi;
	   goto dead
	:: step(statePolling, evPolled, stateAborting); goto undo       /* a statement failed */
	fi;

#ifdef M_R1_HOME_FIRST
	asked = true; heard != none || gone;
#endif
	do
	:: i <= NV ->
		crashpoint;
		bound[i] = true;
		call(i, efPrepare, own, a);
		if
		:: a == yes
#ifdef M_R10_LOST_VOTE_IS_YES
		:: a == lost
#endif
		:: else -> failed = true
		fi;
		a = none; i++
	:: else -> break
	od;
	if
	:: failed -> step(statePreparing, evVoted, stateAborting); goto undo
	:: step(statePreparing, evVoted, stateAborting); goto undo  /* the time is up: no vote counts */
	:: !failed -> step(statePreparing, evVoted, stateDeciding)
	fi;

decide:
	crashpoint;
#ifdef M_R1_COMMIT_FIRST
	i = 1; call(i, efCommit, own, a); a = none;
#endif
#ifdef M_R1_REPORT_FIRST
	report(commit);
#endif
	if
	:: true
	:: step(stateDeciding, evDecided, stateAborting); goto undo      /* too late, and nobody was asked (R2) */
	fi;
	/* efDecide */
#if REG == HOME || NV == 0
#ifndef M_R1_HOME_FIRST
	asked = true;                                           /* see Home */
#endif
	if
	:: heard == yes -> d = commit
	:: heard == no -> d = abort
	:: heard == none && gone                                /* R10: its answer is lost */
	:: faults < FAULTS -> faults++
	:: goto dead
	fi;
#else
	Decide(commit, 0, false, true, d);
#endif
	a = none;
	do
	:: d != nothing -> break
#ifdef M_R3_LOST_IS_ABORT
	:: d == nothing -> d = abort; break
#else
	:: d == nothing ->                                      /* efAsk */
		step(stateDeciding, evDecided, stateDeciding);
		crashpoint;
#ifdef M_R4_CLOCK_STARTS_LATE
		if                                                  /* it starts with the first ask */
		:: first -> slept = aged
		:: else
		fi;
		first = false;
#endif
#if REG == HOME
		closed[0] = true;
#if RETURNS
		if                                                  /* endReturned */
		:: p[0] == prepared -> finish(0, efCommit, a, acked[0]); acked[0] = false
		:: else
		fi;
#endif
		if
		:: tooold -> goto dead                              /* LifeMax: left to recovery; told: not known */
		:: Decide(abort, 1, false, !tooold, d)
		fi;
		if
		:: d == abort && tooold -> goto dead                /* it slept: the abort may be its own */
		:: else
		fi
#elif NV == 0
		closed[0] = true;                                   /* Settle: the session's end, then its row */
		gone;
#ifdef M_R3_UNSETTLED
		d = abort
#else
		d = (p[0] == done -> commit : abort)
#endif
#else
		if
		:: aged -> goto dead
		:: Decide(commit, 0, true, !aged, d)
		fi
#endif
#endif
	od;
	if
	:: d == abort -> step(stateDeciding, evDecided, stateAborting); d = nothing; goto undo
	:: else -> step(stateDeciding, evDecided, stateCommitting)
	fi;
	d = nothing;

	crashpoint;
	report(commit);
#ifdef M_R4_FORGET_UNPROVED
	forget();
#endif
	i = 1;
	do
	:: i <= NV ->
		crashpoint;
		call(i, efCommit, own, a);
		if
		:: a == ack -> acked[i] = true
#ifdef M_R10_ROLLBACK_REST
		:: a == lost -> i++;
			do
			:: i <= NV -> call(i, efRollback, own, a); i++
			:: else -> break
			od;
			goto dead
#endif
		:: else ->                                          /* finishBranch, until AckTimeout */
			closed[i] = true;
			if
			:: finish(i, efCommit, a, acked[i])
			:: true
			fi
		fi;
		a = none; i++
	:: else -> break
	od;
	if
	:: (NV < 1 || acked[1]) && (NV < 2 || acked[2]) ->
		step(stateCommitting, evEnded, stateCommitted);
		crashpoint;
		forget()
	:: else                                                 /* the record stays */
	fi;
	goto dead;

undo:
	report(abort);
	i = 1;
	do
	:: i <= NV -> crashpoint; call(i, efRollback, own, a); a = none; i++
	:: else -> break
	od;
	closed[0] = true;                                       /* and the home's, by its session's end */
	step(stateAborting, evEnded, stateAborted);

dead:
	atomic {                        /* what nobody looks at any more is reset: fewer states */
		over = true; st = stateActive; heard = none;
		closed[0] = true; closed[1] = true; closed[2] = true;
		acked[1] = false; acked[2] = false;
		i = 0; failed = false; a = none; d = nothing
	}
}

/* ---- recovery and upkeep, in another process ------------------------------ */
#if REG == FILE
#define reachable over              /* the log has one owner */
#else
#define reachable true
#endif

#ifdef LIVE                         /* a pass comes to every branch: not for ever to others */
#define others (p[0] != prepared)
#else
#define others true
#endif

proctype Recoverer() {
	byte i = 0;
	mtype:record d = nothing;
	mtype:answer a = none;
	bool proved = false;
end:
	do
	:: atomic {                                             /* P: one listed branch */
		reachable && (p[0] == prepared || p[1] == prepared || p[2] == prepared) ->
		if
		:: p[0] == prepared -> i = 0                        /* RETURNS */
		:: others && p[1] == prepared -> i = 1
		:: others && p[2] == prepared -> i = 2
		fi
	   };
	   atomic { d = row };                                  /* T: Lookup waits for nobody */
#if RETURNS && REG == HOME && !defined(M_R6_RETURNED_LEFT)
	   atomic {                                             /* returned: the record is in the branch itself */
		if
#ifdef M_R2_RETURNED_ROLLED_BACK
		:: i == 0 && d == nothing && p[0] == prepared -> d = abort
#else
		:: i == 0 && d == nothing && p[0] == prepared -> d = commit
#endif
		:: else
		fi
	   };
#endif
	   if
	   :: d == nothing ->
#if defined(M_R2_NO_TOMBSTONE)
		d = abort
#else
#ifndef M_R4_STALE_PASS
		atomic {                                            /* Q, and pass.fresh */
			if
			:: p[i] == prepared -> deciding_pass++
			:: else -> goto next
			fi
		};
		Decide(abort, 1, false, true, d);
		atomic { deciding_pass-- };
#else
		Decide(abort, 1, false, true, d);
#endif
#ifdef M_R2_OWN_WISH
		d = abort;                                          /* what it asked for, not what is stored */
#endif
		if
		:: d == nothing -> goto next                        /* R3 */
		:: else
		fi
#endif
	   :: else
	   fi;
	   if
	   :: d == commit -> finish(i, efCommit, a, proved)
	   :: d == abort -> finish(i, efRollback, a, proved)
	   fi;
	   goto next

	/* upkeep: prove every branch of an old record, then forget it */
#ifdef M_R4_KEEP_SHORT
	:: reachable && row == commit ->
#else
	:: reachable && row == commit && aged ->
#endif
	   i = 1;
#ifndef M_R4_FORGET_BY_AGE
	   do
	   :: i <= NV && bound[i] ->
		proved = false;
		finish(i, efCommit, a, proved);
		if
		:: !proved -> goto next
		:: else
		fi;
		i++
	   :: i <= NV && !bound[i] -> i++
	   :: else -> break
	   od;
#endif
	   forget();
next:
	   atomic { i = 0; d = nothing; a = none; proved = false }
#ifdef M_R6_ONE_PASS
	   ; break
#endif
	od
}

/* ---- the server of the home, or of a sole writer -------------------------- */
/* Two statements, so that others come in between: the insert takes the key, the
 * commit makes both durable. A server carries on with what it has received,
 * whoever still listens, until it ends the session. */
inline insert() {
#if REG == HOME
#ifdef M_R2_NO_KEY
	locked = true                                           /* nothing keeps others out */
#else
	if
	:: row == nothing -> locked = true
	:: row != nothing ->
#ifdef M_R1_REFUSED_COMMITS
		asked = false; p[0] = done; heard = no; check()     /* MariaDB commits the rest of the branch */
#else
		asked = false; p[0] = undone; heard = no; check()   /* the key is there: roll back */
#endif
	fi
#endif
#else
	locked = true
#endif
}

inline homecommit() {
	asked = false; locked = false;
#if REG == HOME
#ifdef M_R1_HOME_UNRECORDED
	if
	:: chosen == nothing -> chosen = commit
	:: else
	fi;
#else
	write(commit);
#endif
#else
	chosen = commit;
#endif
	p[0] = done; heard = yes;
	check()
}

proctype Home() {
end:
	do
	:: atomic { asked && !gone && !locked && p[0] == working -> insert() }
	:: atomic { asked && !gone && locked -> homecommit() }
	od
}

#if RETURNS && (REG == HOME || defined(M_R1_SOLE_UNRECORDED))
/* The server crashes soon after the commit, which is not durable yet although the
 * binary log has it: the branch is prepared again, and so is its record. */
#define returnable (p[0] == done && !aged && (REG != HOME || row == commit) && faults < FAULTS)

inline comeback() {
	faults++;
	p[0] = prepared; gone = true;
#if REG == HOME
	row = nothing; locked = true;
#endif
	if
	:: heard = none                                             /* the answer did not get out */
	:: true
	fi;
	check()
}
#endif

/* ---- time, sessions that end, messages that arrive late ------------------- */
/* The home's session may end by itself, which costs a fault: a branch that loses its
 * own then has simply not voted. */
inline leave0() {
	if
	:: !closed[0] -> faults++
	:: else
	fi;
	gone = true; asked = false; locked = false;
	if
	:: p[0] == working -> p[0] = undone
	:: else
	fi;
	check()
}

inline leave(i) {
	held[i] = false;
	if
	:: p[i] == working -> p[i] = undone
	:: else
	fi;
	if
	:: latefrom[i] == own -> late[i] = 0; latefrom[i] = 0
	:: else
	fi;
	check()
}

inline arrive(i, ef, a) {
	ef = late[i]; late[i] = 0;
	serve(i, ef, latefrom[i], a);
	latefrom[i] = 0; ef = 0; a = none
}

/* An abort record goes when nobody can commit against it any more (R5): the database
 * has ended the home's session; below the floor a register refuses; the log's owner
 * is gone. */
#if defined(M_R5_EXPIRE_EARLY) || defined(M_R5_NO_FLOOR)
#define expirable (row == abort)
#elif REG == HOME
#define expirable (row == abort && gone && !lateput[1])
#elif REG == SQL
#define expirable (row == abort && floor && !lateput[1])
#else
#define expirable (row == abort && over)
#endif

/* Servers end the sessions that were let go of, and get what travelled late. They, the
 * clock and expiry are apart, so that fairness gives each its turn. */
proctype Servers() {
	mtype:effect ef = 0;
	mtype:answer a = none;
end:
	do
	:: atomic { !gone && (closed[0] || faults < FAULTS) -> leave0() }
	:: atomic { closed[1] && (p[1] == working || held[1] || latefrom[1] == own) -> leave(1) }
	:: atomic { closed[2] && (p[2] == working || held[2] || latefrom[2] == own) -> leave(2) }
#if RETURNS
	:: atomic { late[0] != 0 -> arrive(0, ef, a) }
#endif
	:: atomic { late[1] != 0 -> arrive(1, ef, a) }
	:: atomic { late[2] != 0 -> arrive(2, ef, a) }
	:: atomic { lateput[0] -> lateput[0] = false; put(commit) }
	:: atomic { lateput[1] && !locked -> lateput[1] = false; put(abort) }
	od
}

/* No request travels for longer than LifeMax. */
proctype Clock() {
end:
	do
	:: d_step { (row == commit || floor) && !aged && !lateput[1] -> aged = true }
#if REG == SQL
	:: d_step { row == abort && !floor -> floor = true }
#endif
	od
}

proctype Expiry() {
end:
	do
	:: d_step { expirable -> row = nothing }
#if RESURRECT
	:: atomic { p[1] == undone && was[1] && faults < FAULTS -> faults++; p[1] = prepared; held[1] = false }
	:: atomic { p[2] == undone && was[2] && faults < FAULTS -> faults++; p[2] = prepared; held[2] = false }
#endif
#ifdef returnable
	:: atomic { returnable -> comeback() }
#endif
	od
}

#ifdef LIVE
bool tick = false;
proctype Tick() { do :: tick = !tick od }   /* keeps every run infinite, so that cycles are found */

/* I4: whatever happens, in the end nothing is open or in doubt. */
ltl live { <> [] (p[0] != working && p[0] != prepared && p[1] != working && p[1] != prepared && p[2] != working && p[2] != prepared) }
#endif

init {
	byte n = 0;
	atomic {
		p[0] = (REG == HOME || NV == 0 -> working : undone);
		p[1] = (NV > 0 -> working : undone);
		p[2] = (NV > 1 -> working : undone);
		late[0] = 0; late[1] = 0; late[2] = 0;
		run Coordinator();
		run Home();
		run Servers();
		run Clock();
		run Expiry();
		do
		:: n < NR -> run Recoverer(); n++
		:: else -> break
		od;
#ifdef LIVE
		run Tick();
#endif
		n = 0
	}
}
