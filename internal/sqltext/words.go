package sqltext

// A word is a keyword that matters here; zero is any other.
type word uint8

const (
	wordSemicolon word = 1 + iota // not a word: marks the sign in a trigger's body
	wordAbort
	wordAlter
	wordAnalyze
	wordAtomic
	wordAutocommit
	wordBackup
	wordBegin
	wordCache
	wordCase
	wordChange
	wordCheck
	wordClone
	wordCommit
	wordCreate
	wordDefault
	wordDelete
	wordDesc
	wordDescribe
	wordDrop
	wordEnd
	wordExplain
	wordFlush
	wordFor
	wordFormat
	wordFunction
	wordGlobal
	wordGrant
	wordHelp
	wordImport
	wordIn
	wordIndex
	wordInsert
	wordInstall
	wordInto
	wordKey
	wordLoad
	wordLocal
	wordLock
	wordMerge
	wordNext
	wordNo
	wordOptimize
	wordOr
	wordPassword
	wordPragma
	wordPrepare
	wordProcedure
	wordRelease
	wordRename
	wordRepair
	wordReplace
	wordReset
	wordRestart
	wordRevoke
	wordRollback
	wordSavepoint
	wordSelect
	wordSession
	wordSet
	wordShare
	wordShow
	wordShutdown
	wordStart
	wordStatement
	wordStop
	wordTable
	wordTemp
	wordTemporary
	wordTo
	wordTransaction
	wordTrigger
	wordTruncate
	wordUninstall
	wordUnlock
	wordUpdate
	wordUse
	wordValue
	wordValues
	wordWith
	wordWork
	wordXA
)

const wordLengthMax = 24 // longest word looked up, here or among the functions

// upper folds text to upper case, or returns nothing if it is longer than any word known.
func upper(text string, buf *[wordLengthMax]byte) []byte {
	if len(text) > len(buf) {
		return nil
	}
	for i := range len(text) {
		c := text[i]
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		buf[i] = c
	}
	return buf[:len(text)]
}

// keyword returns the last token as a word.
func (s *scanner) keyword() word {
	var buf [wordLengthMax]byte
	switch string(upper(s.text[s.start:s.pos], &buf)) {
	case "ABORT":
		return wordAbort
	case "ALTER":
		return wordAlter
	case "ANALYZE", "ANALYSE":
		return wordAnalyze
	case "ATOMIC":
		return wordAtomic
	case "AUTOCOMMIT":
		return wordAutocommit
	case "BACKUP":
		return wordBackup
	case "BEGIN":
		return wordBegin
	case "CACHE":
		return wordCache
	case "CASE":
		return wordCase
	case "CHANGE":
		return wordChange
	case "CHECK":
		return wordCheck
	case "CLONE":
		return wordClone
	case "COMMIT":
		return wordCommit
	case "CREATE":
		return wordCreate
	case "DEFAULT":
		return wordDefault
	case "DELETE":
		return wordDelete
	case "DESC":
		return wordDesc
	case "DESCRIBE":
		return wordDescribe
	case "DROP":
		return wordDrop
	case "END":
		return wordEnd
	case "EXPLAIN":
		return wordExplain
	case "FLUSH":
		return wordFlush
	case "FOR":
		return wordFor
	case "FORMAT":
		return wordFormat
	case "FUNCTION":
		return wordFunction
	case "GLOBAL":
		return wordGlobal
	case "GRANT":
		return wordGrant
	case "HELP":
		return wordHelp
	case "IMPORT":
		return wordImport
	case "IN":
		return wordIn
	case "INDEX":
		return wordIndex
	case "INSERT":
		return wordInsert
	case "INSTALL":
		return wordInstall
	case "INTO":
		return wordInto
	case "KEY":
		return wordKey
	case "LOAD":
		return wordLoad
	case "LOCAL":
		return wordLocal
	case "LOCK":
		return wordLock
	case "MERGE":
		return wordMerge
	case "NEXT":
		return wordNext
	case "NO":
		return wordNo
	case "OPTIMIZE":
		return wordOptimize
	case "OR":
		return wordOr
	case "PASSWORD":
		return wordPassword
	case "PRAGMA":
		return wordPragma
	case "PREPARE":
		return wordPrepare
	case "PROCEDURE":
		return wordProcedure
	case "RELEASE":
		return wordRelease
	case "RENAME":
		return wordRename
	case "REPAIR":
		return wordRepair
	case "REPLACE":
		return wordReplace
	case "RESET":
		return wordReset
	case "RESTART":
		return wordRestart
	case "REVOKE":
		return wordRevoke
	case "ROLLBACK":
		return wordRollback
	case "SAVEPOINT":
		return wordSavepoint
	case "SELECT":
		return wordSelect
	case "SESSION":
		return wordSession
	case "SET":
		return wordSet
	case "SHARE":
		return wordShare
	case "SHOW":
		return wordShow
	case "SHUTDOWN":
		return wordShutdown
	case "START":
		return wordStart
	case "STATEMENT":
		return wordStatement
	case "STOP":
		return wordStop
	case "TABLE":
		return wordTable
	case "TEMP":
		return wordTemp
	case "TEMPORARY":
		return wordTemporary
	case "TO":
		return wordTo
	case "TRANSACTION":
		return wordTransaction
	case "TRIGGER":
		return wordTrigger
	case "TRUNCATE":
		return wordTruncate
	case "UNINSTALL":
		return wordUninstall
	case "UNLOCK":
		return wordUnlock
	case "UPDATE":
		return wordUpdate
	case "USE":
		return wordUse
	case "VALUE":
		return wordValue
	case "VALUES":
		return wordValues
	case "WITH":
		return wordWith
	case "WORK":
		return wordWork
	case "XA":
		return wordXA
	}
	return 0
}
