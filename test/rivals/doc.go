// Package rivals sets the same traps for several ways of moving money between two
// databases, on real servers, and counts the money afterwards.
//
//	go test -v -count=1 ./test/rivals
//
// prints the tables of docs/rivals.md, and fails if they are not what is written
// there; with -rewrite it writes them there. What troth does in a trap must be
// right, whatever the page says.
package rivals
