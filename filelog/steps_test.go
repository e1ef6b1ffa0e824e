package filelog

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/troth-tx/troth"
)

// stepsVariable makes the test binary a program that decides one transaction
// after the other, until that fails. It is the number of the first, a space, and
// the log's directory.
const stepsVariable = "TROTH_FILELOG_STEPS"

const stepsMax = 200 // through three segments

// stepsMain prints "D <gid>" after each decision that was confirmed, and "E" and
// the error of the first that was not. Then it asks once more, and prints "E again".
func stepsMain(what string) {
	number, dir, _ := strings.Cut(what, " ")
	first := must(strconv.Atoi(number))
	l, err := Open(dir, WithSegmentSize(segmentSizeMin), WithUnsafeFileSystem())
	if err != nil {
		fmt.Println("E", err)
		return
	}
	for n := range stepsMax {
		d := bigCommit(first + n)
		if _, err = l.Decide(background, d); err != nil {
			fmt.Println("E", err)
			break
		}
		fmt.Println("D", d.GID)
	}
	if err != nil {
		_, again := l.Decide(background, bigCommit(first+stepsMax))
		if errors.Is(err, ErrFailed) && !errors.Is(again, ErrFailed) {
			fmt.Println("N", again) // it failed, and then it did not
		}
	}
	fmt.Println("C", l.Close(background))
}

// bigCommit is a decision of about 1 KiB.
func bigCommit(n int) troth.Decision {
	d := commitNo(n)
	for b := range 20 {
		d.Branches = append(d.Branches, troth.BranchRecord{Resource: "athos", Branch: 10 + b, Evidence: strings.Repeat("7", 40)})
	}
	return d
}
