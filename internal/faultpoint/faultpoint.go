// Package faultpoint names the places where a test may stop the process. Hit does
// nothing, and no name is in the binary, unless it is built with the tag
// "faultpoint". [Points] lists the names, and says how to come to each.
//
// With the tag, the environment variable TROTH_FAULT says what to do, as
// "<point>:<n>:<action>": at the n-th hit (from 1) of the point
//
//	kill    SIGKILL to oneself
//	freeze  SIGSTOP to oneself, once "faultpoint <point>" is written to standard error
//	exit    os.Exit(7)
//	print   write "faultpoint <point>" to standard error, at every hit
//
// "print" with point "*" prints every point that is hit. Several such plans may be
// given, separated by commas.
package faultpoint
