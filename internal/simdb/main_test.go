package simdb

import (
	"testing"

	"github.com/troth-tx/troth/internal/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }
