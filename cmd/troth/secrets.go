package main

import (
	"cmp"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// hidden stands where a password was.
const hidden = "xxxxx"

// secretSizeMin is from how many bytes on a password is hidden wherever it
// occurs: hiding "a" everywhere would hide everything. Shorter ones are hidden
// within addresses.
const secretSizeMin = 4

// secrets knows the passwords that the program was given, so that no text
// shows one, whatever a driver puts into its errors (S10). The zero value knows
// none.
type secrets struct{ known []string }

var (
	// userinfo is what stands between "://" and the last "@": an address that was
	// mistyped, such as one with an "@" in its password, is found too.
	userinfo = regexp.MustCompile(`://([^:\s]*):(\S*)@`)
	// goDSN is the data source name of go-sql-driver, which is no address of ours,
	// but people try it.
	goDSN    = regexp.MustCompile(`(?:^|[=\s"'])([^:/\s]+):(\S+)@\w*\(`)
	passParm = regexp.MustCompile(`(?i)([a-z_]*pass[a-z]*=)([^&\s"']+)`)
)

// learn notes every password in a text: an argument, an environment variable, a
// line of the configuration file.
func (s *secrets) learn(text string) {
	for _, m := range userinfo.FindAllStringSubmatch(text, -1) {
		s.add(m[2])
		if first, _, more := strings.Cut(m[2], "@"); more {
			s.add(first)
		}
	}
	for _, m := range goDSN.FindAllStringSubmatch(text, -1) {
		s.add(m[2])
	}
	for _, m := range passParm.FindAllStringSubmatch(text, -1) {
		s.add(m[2])
	}
}

func (s *secrets) add(password string) {
	forms := []string{password}
	if plain, err := url.PathUnescape(password); err == nil {
		forms = append(forms, plain, url.QueryEscape(plain), url.PathEscape(plain))
	}
	for _, f := range forms {
		if len(f) >= secretSizeMin && !slices.Contains(s.known, f) {
			s.known = append(s.known, f)
		}
	}
	slices.SortFunc(s.known, func(a, b string) int { return cmp.Compare(len(b), len(a)) }) // the longest first: one may contain another
}

// hide returns text without the passwords.
func (s *secrets) hide(text string) string {
	for _, k := range s.known {
		text = strings.ReplaceAll(text, k, hidden)
	}
	text = userinfo.ReplaceAllString(text, "://$1:"+hidden+"@")
	return passParm.ReplaceAllString(text, "$1"+hidden)
}

// holdsPassword reports whether an address has a password in it.
func holdsPassword(address string) bool {
	return userinfo.MatchString(address) || passParm.MatchString(address)
}
