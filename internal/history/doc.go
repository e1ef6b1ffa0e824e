// Package history keeps what clients did and saw, and finds in it, together with
// what the databases hold in the end, every promise that was broken.
//
// A history is a list of [Event]s: an invocation when a client sets out, a
// completion when it was told something. A client that is killed leaves an
// invocation alone, which means what [Unknown] means: it may have happened.
//
// The checkers are pure functions from events and the observed end ([Final]) to
// [Violation]s. They know nothing of troth: the numbers I1 to I15 are those of
// docs/testing.md.
package history
