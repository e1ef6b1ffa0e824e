// Command troth looks after the transactions that package troth runs: it checks
// databases, shows what is in doubt and why, and ends it.
//
// Run "troth help" for the commands and "troth help config" for how databases
// are named. This page is the contract for programs that read its output.
//
// # Exit codes
//
//	0  ok
//	1  error
//	2  usage: a flag, an argument, an environment variable or the configuration file
//	3  attention: doctor found warnings or worse; a branch of the domain is in doubt,
//	   or was left in doubt (of any domain if none is configured); a transaction is not
//	   decided yet; server list or show: a transaction is stuck
//	4  a database, the register or the server could not be asked, and nothing above says more
//	5  there is no record of the transaction
//
// # JSON
//
// With -o json each command writes one object to the standard output, and an error
// writes {"error": text, "exit_code": number} to the standard error. Fields are
// added, never renamed. Durations are numbers of seconds, times are RFC 3339 in
// UTC; what is not known is null, and a list is never null.
//
//	doctor    resources[]{resource address status error findings[]} register across[] summary{}
//	          status is checked, failed, unreachable or refused (the login); findings[]
//	          and across[] are {severity subject found why fix}; severity is ok, note, warning or fatal;
//	          register is like one of resources[], null if decisions are in these;
//	          summary is {resources unreachable failed fatal warnings notes}; unreachable
//	          counts refused too
//	indoubt   branches[] unreachable[] other_domains[]
//	tx show   transaction domain begun outcome place{resource identity} record{at branches[]}
//	          branches[] heuristic[] verdict unreachable[]
//	tx why    as tx show
//	tx wait   transaction outcome waited_seconds
//	recover   ended left branches[] errors[] unreachable[] other_domains[]
//	resolve   transaction want force ended branches[]
//	version   version revision modified time go os arch
//	serve     http grpc store, once it listens
//	server    what the server's API answers, see docs/http-api.md: list transactions[] next_cursor;
//	          show a transaction; retry, stop done; audit entries[] next_before; topics topics[]{topic
//	          subscribers[]{url remark}}
//
// where
//
//	branches[]     {resource ours transaction branch domain name begun age_seconds owner database
//	               place{resource identity} decision verdict blocked[]{session query waiting_seconds}}
//	               of prepared branches; decision is commit, abort, none or unknown
//	record         {at branches[]{resource branch}} of the stored commit, if there is one
//	heuristic[]    {resource name ended evidence}
//	unreachable[]  {resource error}; the resource is empty for the register and for a decision
//	               that could not be read
//	other_domains[]  {domain branches} counts the branches of domains that were not looked after
//	outcome        is committed, aborted, undecided, or unknown if somebody could not be asked
package main
