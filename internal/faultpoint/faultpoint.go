// Package faultpoint names the places where a test may stop the process. Hit does
// nothing, and no name is in the binary, unless it is built with the tag
// "faultpoint".
//
// With the tag, the environment variable TROTH_FAULT says what to do, as
// "<point>:<n>:<action>": at the n-th hit (from 1) of the point
//
//	kill    SIGKILL to oneself
//	freeze  SIGSTOP to oneself
//	exit    os.Exit(7)
//	print   write the point's name to standard error
//
// "print" with point "*" prints every point that is hit.
package faultpoint
