// Package sim runs the real transaction manager against simulated databases, a
// simulated network and simulated crashes, one seed at a time, and checks what
// must never happen.
//
// A run lives in a bubble of testing/synctest, so its clock is virtual. The
// processes in it are ordinary goroutines that run the real [troth.Manager]; but
// each time one of them asks something of the world outside (a statement, a
// commit, a look into a register) it hands in a call and waits. The scheduler,
// which is the bubble's first goroutine, lets everybody run until all wait, puts
// the calls that came in into an order that depends on nothing but what they are,
// and then carries out one, chosen by the seed; or lets some time pass; or lets a
// fault happen. So the interleaving of everything that matters is the seed's
// choice, and a seed gives the same run each time: its trace has one hash.
//
// Each seed draws its own world: how many processes and databases, of which
// kinds, where decisions are recorded, what the programs do, and which kinds of
// faults there are (swarm testing, Groce et al. 2012). A run has two phases. In
// the first, faults happen. Then everything heals, and within a bounded time
// nothing may be in doubt any more.
//
// There are two depths. The plain one puts resource managers of its own, over
// databases that are a few maps, under the real Manager: thousands of schedules a
// second, for the protocol and its recovery. The deep one puts the real packages
// postgres, mysql, sqlite and sqlregister, through database/sql, over the SQL
// servers of internal/simdb: slower, for what those packages make of what servers
// answer.
//
// What is checked at the instant at which it happens: R1 no prepared branch
// commits before the decision is durable; R2 none is rolled back against it, and
// no decision is reversed; R4 no record goes while a branch needs it; R5 no
// record of an abort goes while a branch could still commit; R7 nobody touches a
// foreign branch. And at the end: I1 all branches agree, I3 every program was
// told the truth, I4 and I7 nothing is in doubt, I5 no work is lost or doubled.
package sim
