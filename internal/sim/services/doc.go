// Package services runs the real engine of package engine against simulated
// participants, stores that lose answers, and processes that die or freeze, one seed at
// a time.
//
// A run lives in a bubble of testing/synctest, so its clock is virtual. Whatever crosses
// a border (a call of the store, a call of a participant, a step of a program) takes a
// time, and may go wrong, as the seed says for exactly that crossing: what is drawn
// depends on who asks what for the how manieth time, never on the order of arrival.
// Goroutines that are awake at one instant run in any order, so no two crossings end at
// one, also not those that are given up together (calls that began together have no more
// time together): a seed gives the same run each time.
//
// What is checked, by the invariants of docs/testing.md: I3 callers are told the truth;
// I6 each operation counts once through the barrier; I7 after the faults everything
// ends; I13 a state only goes forward; I14 compensations run in the opposite order, and
// for what may have been done only; I15 a message is delivered if, and only if, its
// sender committed.
package services
