package sqltext

import (
	"strings"
	"unicode/utf8"
)

// statement reads one statement and classifies it.
func (s *scanner) statement() Statement {
	var st Statement
	st.Kind, st.Word, st.Name = s.classify()
	for s.step() != tokenEnd { // what did not matter to classify
	}
	switch {
	case s.unterminated && s.exposed:
		// A server that is older than the executable comment is for sees other quotes than we do.
		st = Statement{Kind: TransactionControl, Word: "quote left open in an executable comment"}
	case s.unterminated:
		st = Statement{Kind: Write}
	}

	// What is behind the last statement, if only blanks, belongs to it.
	end := s.pos
	if s.blanks(); s.pos == len(s.text) {
		end = s.pos
	}
	st.Text = s.text[:end]
	return st
}

// classify reads as much of the statement as it takes to tell its kind.
func (s *scanner) classify() (k Kind, what, name string) {
	t := s.step()
	for t == tokenOpen { // (SELECT ...) UNION (SELECT ...)
		t = s.step()
	}
	if t == tokenEnd {
		return Empty, "", ""
	}
	if t != tokenWord {
		return Write, "", ""
	}
	return s.byFirstWord(s.keyword())
}

func (s *scanner) byFirstWord(w word) (k Kind, what, name string) {
	switch w {
	case wordSelect:
		return s.reading(false), "SELECT", ""
	case wordValues:
		return s.reading(false), "VALUES", ""
	case wordTable:
		return s.reading(false), "TABLE", ""
	case wordWith:
		return s.reading(true), "WITH", ""
	case wordExplain:
		return s.explain(), "EXPLAIN", ""
	case wordShow:
		return Read, "SHOW", ""
	case wordSet:
		return s.set()
	case wordBegin:
		return TransactionControl, "BEGIN", ""
	case wordStart:
		return s.begin()
	case wordCommit:
		return TransactionControl, "COMMIT", ""
	case wordRollback:
		return s.rollback()
	case wordSavepoint:
		return Savepoint, "SAVEPOINT", s.name(s.step())
	case wordRelease:
		t := s.step()
		if t == tokenWord && s.keyword() == wordSavepoint {
			t = s.step()
		}
		return Release, "RELEASE SAVEPOINT", s.name(t)
	case wordCreate:
		return s.create()
	case wordAnalyze:
		return s.analyze()
	}
	switch s.dialect {
	case Postgres:
		return s.byFirstWordPostgres(w)
	case MySQL:
		return s.byFirstWordMySQL(w)
	case SQLite:
		return s.byFirstWordSQLite(w)
	}
	return Write, "", ""
}

func (s *scanner) byFirstWordPostgres(w word) (k Kind, what, name string) {
	k = Write
	switch w {
	case wordEnd:
		k, what = TransactionControl, "END"
	case wordAbort:
		k, what = TransactionControl, "ABORT"
	case wordPrepare:
		what = "PREPARE"
		if s.step() == tokenWord && s.keyword() == wordTransaction {
			k, what = TransactionControl, "PREPARE TRANSACTION"
		}
	case wordReset:
		k, what = Setting, "RESET"
	}
	return k, what, ""
}

func (s *scanner) byFirstWordSQLite(w word) (k Kind, what, name string) {
	k = Write
	switch w {
	case wordEnd:
		k, what = TransactionControl, "END"
	case wordPragma:
		k, what = Setting, "PRAGMA"
		t := s.step()
		for t == tokenWord { // the schema, a dot, the name
			if s.readingPragma() {
				k = Read
			}
			if t = s.step(); t == tokenOther && s.text[s.start] == '.' {
				t = s.step()
			}
		}
	}
	return k, what, ""
}

func (s *scanner) byFirstWordMySQL(w word) (k Kind, what, name string) {
	k = Write
	switch w {
	case wordXA:
		k, what = TransactionControl, "XA"
	case wordUse:
		k, what = Setting, "USE"
	case wordDesc, wordDescribe:
		return s.explain(), "DESCRIBE", ""
	case wordHelp:
		k, what = Read, "HELP"
	case wordDrop:
		what = "DROP"
		if s.step() != tokenWord || s.keyword() != wordTemporary {
			k = ImplicitCommit
		}
	case wordLoad:
		what = "LOAD"
		if s.step() == tokenWord && s.keyword() == wordIndex {
			k, what = ImplicitCommit, "LOAD INDEX"
		}
	default:
		if what = implicit[w]; what != "" {
			k = ImplicitCommit
		}
	}
	return k, what, ""
}

// implicit has the first words after which nothing else need be known: they all commit.
var implicit = [256]string{
	wordAlter: "ALTER", wordBackup: "BACKUP", wordCache: "CACHE INDEX", wordChange: "CHANGE", wordCheck: "CHECK",
	wordClone: "CLONE", wordFlush: "FLUSH", wordGrant: "GRANT", wordImport: "IMPORT", wordInstall: "INSTALL",
	wordLock: "LOCK", wordOptimize: "OPTIMIZE", wordRename: "RENAME", wordRepair: "REPAIR", wordReset: "RESET",
	wordRestart: "RESTART", wordRevoke: "REVOKE", wordShutdown: "SHUTDOWN", wordStop: "STOP",
	wordTruncate: "TRUNCATE", wordUninstall: "UNINSTALL", wordUnlock: "UNLOCK",
}

// begin is START TRANSACTION, or MySQL's START REPLICA.
func (s *scanner) begin() (k Kind, what, name string) {
	k, what = Write, "START"
	if s.step() == tokenWord && s.keyword() == wordTransaction {
		k, what = TransactionControl, "START TRANSACTION"
	} else if s.dialect == MySQL {
		k = ImplicitCommit
	}
	return k, what, ""
}

// rollback is ROLLBACK [WORK|TRANSACTION] [TO [SAVEPOINT] name], or ROLLBACK PREPARED.
func (s *scanner) rollback() (k Kind, what, name string) {
	for t := s.step(); t == tokenWord; t = s.step() {
		switch s.keyword() {
		case wordWork, wordTransaction:
			continue
		case wordTo:
			t = s.step()
			if t == tokenWord && s.keyword() == wordSavepoint {
				t = s.step()
			}
			return RollbackTo, "ROLLBACK TO SAVEPOINT", s.name(t)
		}
		break
	}
	return TransactionControl, "ROLLBACK", ""
}

// name reads the name of a savepoint in the token t. It returns nothing unless that is the last one.
func (s *scanner) name(t token) string {
	text := s.text[s.start:s.pos]
	switch {
	case t == tokenWord:
		text = s.fold(text)
	case (t == tokenQuoted || t == tokenString && s.dialect == SQLite) && !s.unterminated:
		text = s.unquote(text)
	default:
		return ""
	}
	if s.step() != tokenEnd {
		return ""
	}
	return text
}

func (s *scanner) unquote(text string) string {
	quote := text[len(text)-1:]
	text = text[1 : len(text)-1]
	if quote != "]" && strings.Contains(text, quote) {
		text = strings.ReplaceAll(text, quote+quote, quote)
	}
	if s.dialect == Postgres { // case counts between quotes
		return truncate(text)
	}
	return s.fold(text)
}

// fold brings an identifier to the form in which the database compares it.
func (s *scanner) fold(text string) string {
	switch s.dialect {
	case Postgres:
		return truncate(lower(text))
	case SQLite:
		return lower(text)
	case MySQL:
		return strings.ToLower(text)
	}
	return text
}

// truncate cuts an identifier as PostgreSQL does (NAMEDATALEN).
func truncate(text string) string {
	const bytesMax = 63
	if len(text) <= bytesMax {
		return text
	}
	end := bytesMax
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// lower folds ASCII only.
func lower(text string) string {
	for i := range len(text) {
		if c := text[i]; c >= 'A' && c <= 'Z' {
			folded := []byte(text)
			for ; i < len(folded); i++ {
				if c := folded[i]; c >= 'A' && c <= 'Z' {
					folded[i] = c + ('a' - 'A')
				}
			}
			return string(folded)
		}
	}
	return text
}

// create sets up the scanner for statements with other statements in them.
func (s *scanner) create() (k Kind, what, name string) {
	k = Write
	if s.dialect == MySQL {
		k = ImplicitCommit
	}
	if s.dialect == Postgres {
		s.body = bodyParens
	}
	for t := s.step(); t == tokenWord; t = s.step() {
		switch s.keyword() {
		case wordOr, wordReplace, wordTemp:
			continue
		case wordTemporary:
			if s.dialect == MySQL {
				k = Write // CREATE TEMPORARY TABLE does not commit
			}
			continue
		case wordFunction, wordProcedure:
			if s.dialect == Postgres {
				s.body, s.depth = bodyAtomic, 0
			}
		case wordTrigger:
			if s.dialect == SQLite {
				s.body = bodyTrigger
			}
		}
		break
	}
	return k, "CREATE", ""
}

// analyze is ANALYZE TABLE, or MariaDB's ANALYZE statement, which runs it.
func (s *scanner) analyze() (k Kind, what, name string) {
	if s.dialect == MySQL && s.step() == tokenWord {
		switch s.keyword() {
		case wordFormat:
			return s.reading(true), "ANALYZE", ""
		case wordSelect, wordWith, wordInsert, wordUpdate, wordDelete, wordReplace:
			rest := scanner{dialect: s.dialect, text: s.text, pos: s.start, executable: s.executable}
			k, what, name = rest.classify()
			*s = rest
			return k, what, name
		}
		return ImplicitCommit, "ANALYZE", ""
	}
	return Write, "ANALYZE", ""
}

// explain is a Read, unless it is EXPLAIN ANALYZE, which runs the statement.
func (s *scanner) explain() Kind {
	start := *s
	for t := s.step(); t != tokenEnd; t = s.step() {
		if t == tokenWord && s.keyword() == wordAnalyze {
			*s = start
			return s.reading(true)
		}
	}
	return Read
}

// set is SET, in which MySQL hides the transaction's settings and other statements.
func (s *scanner) set() (k Kind, what, name string) {
	if s.dialect != MySQL {
		return Setting, "SET", ""
	}
	t := s.step()
	k, what = Setting, "SET"
	first := true // nothing but a scope was read yet
	at := 0       // how many @ stand directly before
	call := false // a word that is a call, if a parenthesis follows
	for ; t != tokenEnd; t = s.step() {
		if t == tokenOpen && call {
			k = Write // a stored function may write
		}
		call = false
		switch {
		case t == tokenOther && s.text[s.start] == '@':
			at++
			continue
		case t == tokenQuoted && at != 1 && s.quotedAutocommit():
			return TransactionControl, "SET AUTOCOMMIT", ""
		case t == tokenWord:
			w := s.keyword()
			switch {
			case w == wordAutocommit && at != 1: // @autocommit is a variable of the user
				return TransactionControl, "SET AUTOCOMMIT", ""
			case first && (w == wordSession || w == wordLocal || w == wordGlobal):
				at = 0
				continue
			case first && w == wordTransaction:
				return TransactionControl, "SET TRANSACTION", ""
			case first && w == wordPassword:
				return ImplicitCommit, "SET PASSWORD", ""
			case first && w == wordDefault:
				return ImplicitCommit, "SET DEFAULT ROLE", ""
			case first && w == wordStatement:
				return s.setStatement()
			}
			call = at == 0 && !harmless(s.text[s.start:s.pos])
		case t == tokenQuoted:
			call = true
		}
		first, at = false, 0
	}
	return k, what, ""
}

func (s *scanner) quotedAutocommit() bool {
	return strings.EqualFold(s.text[s.start:s.pos], "`autocommit`")
}

// setStatement is MariaDB's SET STATEMENT variable = value, ... FOR statement.
func (s *scanner) setStatement() (k Kind, what, name string) {
	depth := 0
	for t := s.step(); t != tokenEnd; t = s.step() {
		switch t {
		case tokenOpen:
			depth++
		case tokenClose:
			depth--
		case tokenWord:
			if depth == 0 && s.keyword() == wordFor {
				return s.classify()
			}
		}
	}
	return Setting, "SET", ""
}

// reading reads on in a statement that is a Read unless something in it says otherwise. In one
// with a WITH clause, or one that runs another statement, a word that changes data may stand
// anywhere; else only behind a parenthesis.
func (s *scanner) reading(anywhere bool) Kind {
	k := Read
	var (
		last      token  // the token before
		lastWord  word   // if it is a word
		lastText  string // the same, in MySQL only
		candidate bool   // it is a word that changes data, unless a parenthesis follows
		dot       bool   // it is a dot
		qualified bool   // a dot stands before it
	)
	for t := s.step(); ; t = s.step() {
		var w word
		if t == tokenWord && !s.dull() {
			w = s.keyword()
		}
		switch {
		case candidate && t != tokenOpen,
			w == wordInto && !dot,
			lastWord == wordFor && (w == wordUpdate || w == wordShare || w == wordNo || w == wordKey),
			s.dialect == MySQL && lastWord == wordLock && w == wordIn,
			s.dialect == MySQL && lastWord == wordNext && w == wordValue,
			s.dialect == MySQL && t == tokenOpen && (last == tokenQuoted || last == tokenWord && (qualified || !harmless(lastText))):
			k = Write
		}
		if t == tokenEnd {
			return k
		}
		candidate = false
		if t == tokenWord && !dot {
			switch w {
			case wordInsert, wordUpdate, wordDelete, wordMerge, wordReplace:
				candidate = anywhere || last == tokenOpen
			}
		}
		qualified = dot
		dot = t == tokenOther && s.text[s.start] == '.'
		last, lastWord = t, w
		if s.dialect == MySQL {
			lastText = s.text[s.start:s.pos]
		}
	}
}

// dull reports quickly that the last token is none of the words for which reading looks. Most are.
func (s *scanner) dull() bool {
	const initials = 1<<('d'-'a') | 1<<('f'-'a') | 1<<('i'-'a') | 1<<('k'-'a') | 1<<('l'-'a') | 1<<('m'-'a') |
		1<<('n'-'a') | 1<<('r'-'a') | 1<<('s'-'a') | 1<<('u'-'a') | 1<<('v'-'a')
	n := s.pos - s.start
	c := s.text[s.start] | 0x20
	return n < len("IN") || n > len("REPLACE") || c < 'a' || c > 'z' || initials&(1<<(c-'a')) == 0
}
