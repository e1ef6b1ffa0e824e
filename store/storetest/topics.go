package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/troth-tx/troth/store"
)

func testTopics(t *testing.T, s store.Store) {
	ctx := t.Context()
	require := func(topic string, urls ...string) {
		t.Helper()
		got, err := s.Topic(ctx, topic)
		if err != nil || !slices.EqualFunc(got, urls, func(x store.Subscriber, url string) bool { return x.URL == url }) {
			t.Errorf("Topic(%q) = %v, %v, want %q", topic, got, err, urls)
		}
	}
	requireVersion := func(topic string, want int64) {
		t.Helper()
		if got, err := s.TopicVersion(ctx, topic); err != nil || got != want {
			t.Errorf("TopicVersion(%q) = %d, %v, want %d", topic, got, err, want)
		}
	}
	subscribe := func(topic, url string) {
		t.Helper()
		if err := s.Subscribe(ctx, topic, store.Subscriber{URL: url, Remark: "of " + url}); err != nil {
			t.Fatalf("Subscribe(%q, %q): %v", topic, url, err)
		}
	}
	require("t")
	long := "http://z/" + strings.Repeat("long/", 1000)
	for _, url := range []string{"http://z", "http://a", long, "http://A"} {
		subscribe("t", url)
	}
	subscribe("T", "http://a")
	subscribe("t ", "http://b")
	require("t", "http://z", "http://a", long, "http://A")
	require("T", "http://a")
	require("t ", "http://b")
	if got, err := s.Topic(ctx, "t"); err != nil || got[1].Remark != "of http://a" {
		t.Errorf("the remark is %v, %v", got, err)
	}
	if err := s.Subscribe(ctx, "t", store.Subscriber{URL: "http://a", Remark: "again"}); !errors.Is(err, store.ErrExists) {
		t.Errorf("Subscribe again = %v, want ErrExists", err)
	}
	if err := s.Unsubscribe(ctx, "t", "http://y"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Unsubscribe of who is not there = %v, want ErrNotFound", err)
	}
	if err := s.Unsubscribe(ctx, "t", "http://z"); err != nil {
		t.Error(err)
	}
	subscribe("t", "http://z")
	require("t", "http://a", long, "http://A", "http://z")
	requireVersion("t", 6) // five came, one left; who was refused changed nothing
	requireVersion("T", 1)

	// A topic that was deleted and made again has none of its old subscribers (F9).
	if err := s.DeleteTopic(ctx, "t"); err != nil {
		t.Error(err)
	}
	require("t")
	if err := s.DeleteTopic(ctx, "t"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("DeleteTopic of what is not there = %v, want ErrNotFound", err)
	}
	if v, err := s.TopicVersion(ctx, "t"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("TopicVersion of what is not there = %d, %v, want ErrNotFound", v, err)
	}
	subscribe("t", "http://new")
	require("t", "http://new")
	require("T", "http://a")
	if err := s.Unsubscribe(ctx, "t", "http://new"); err != nil {
		t.Error(err)
	}
	requireVersion("t", 2)
	require("t")
	if err := s.DeleteTopic(ctx, "t"); err != nil {
		t.Errorf("a topic without subscribers was gone: %v", err)
	}

	var created atomic.Int64
	together(crowd, func(i int) {
		err := s.Subscribe(ctx, "crowd", store.Subscriber{URL: fmt.Sprint("http://", i%8)})
		if err == nil {
			created.Add(1)
		} else if !errors.Is(err, store.ErrExists) {
			t.Errorf("Subscribe = %v", err)
		}
	})
	if got, err := s.Topic(ctx, "crowd"); err != nil || len(got) != 8 || created.Load() != 8 {
		t.Errorf("%d have subscribed, and %d, %v are there, want 8", created.Load(), len(got), err)
	}
	requireVersion("crowd", 8)

	var names []string
	for after, rounds := "", 0; rounds < 9; rounds++ {
		page, err := s.AllTopics(ctx, after, 2)
		if err != nil || len(page) > 2 {
			t.Fatalf("AllTopics = %q, %v", page, err)
		}
		if len(page) == 0 {
			break
		}
		names = append(names, page...)
		after = page[len(page)-1]
	}
	if want := []string{"T", "crowd", "t "}; !slices.Equal(names, want) {
		t.Errorf("AllTopics = %q, want %q", names, want)
	}
}

func testAudit(t *testing.T, s store.Store) {
	ctx := t.Context()
	if got, err := s.Entries(ctx, 0, 10); err != nil || len(got) != 0 {
		t.Errorf("Entries of an empty store = %v, %v", got, err)
	}
	want := make([]store.AuditEntry, 25)
	for i := range want {
		want[i] = store.AuditEntry{
			ID: 99, At: epoch.Add(time.Duration(i) * time.Second), Who: "ann", Action: "force-stop", GID: fmt.Sprint("g", i), Reason: strings.Repeat("ü", i*100),
		}
		if err := s.Record(ctx, want[i]); err != nil {
			t.Fatal(err)
		}
	}
	slices.Reverse(want)
	var got []store.AuditEntry
	for before := int64(0); ; {
		page, err := s.Entries(ctx, before, 10)
		if err != nil || len(page) > 10 {
			t.Fatalf("Entries = %d, %v", len(page), err)
		}
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
		before = page[len(page)-1].ID
	}
	for i := range got {
		if i > 0 && got[i].ID >= got[i-1].ID {
			t.Errorf("entry %d has the ID %d after %d", i, got[i].ID, got[i-1].ID)
		}
		got[i].ID, got[i].At = 99, got[i].At.UTC()
	}
	if !slices.Equal(got, want) {
		t.Errorf("Entries = %v, want %v", got, want)
	}
}
