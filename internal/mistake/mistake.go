// Package mistake seeds known mistakes into the code, each at the one place where a
// rule of the design is kept, so that the tests can be tested: whatever is to guard
// the rule must find its violation. [All] lists them.
//
// On is false, and no name is in the binary, unless it is built with the tag
// "mistake". With the tag, the environment variable TROTH_MISTAKE names the one
// that is made; without it, the program is right.
package mistake
