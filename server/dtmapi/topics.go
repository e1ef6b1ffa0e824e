package dtmapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/troth-tx/troth/store"
)

// topicCategory is the only category of what dtm calls KV.
const topicCategory = "topics"

// How long what clients say of topics may be, in bytes, and how many may subscribe.
const (
	topicMax       = 128
	urlMax         = 1024
	remarkMax      = 1024
	subscribersMax = 1000
)

func (h *handler) subscribe(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	topic, s := q.Get("topic"), store.Subscriber{URL: q.Get("url"), Remark: q.Get("remark")}
	write(w, func() error {
		if err := checkTopic(topic, s); err != nil {
			return err
		}
		if err := h.check(s.URL); err != nil {
			return malformed{err}
		}
		present, err := h.Store.Topic(r.Context(), topic)
		switch {
		case err != nil:
			return err
		case len(present) >= subscribersMax:
			return fmt.Errorf("topic: it has %d subscribers, which is the limit", len(present))
		}
		err = h.Store.Subscribe(r.Context(), topic, s)
		if errors.Is(err, store.ErrExists) {
			return errors.New("this url exists")
		}
		return err
	}())
}

func (h *handler) unsubscribe(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	topic, url := q.Get("topic"), q.Get("url")
	write(w, func() error {
		if err := checkTopic(topic, store.Subscriber{URL: url}); err != nil {
			return err
		}
		err := h.Store.Unsubscribe(r.Context(), topic, url)
		if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		_, err = h.Store.TopicVersion(r.Context(), topic)
		switch {
		case errors.Is(err, store.ErrNotFound):
			return errors.New("no such a topic")
		case err != nil:
			return err
		}
		return errors.New("no such an url")
	}())
}

func checkTopic(topic string, s store.Subscriber) error {
	switch {
	case topic == "":
		return errors.New("empty topic")
	case s.URL == "":
		return errors.New("empty url")
	case len(topic) > topicMax:
		return fmt.Errorf("topic has %d bytes, the limit is %d", len(topic), topicMax)
	case len(s.URL) > urlMax:
		return fmt.Errorf("url has %d bytes, the limit is %d", len(s.URL), urlMax)
	case len(s.Remark) > remarkMax:
		return fmt.Errorf("remark has %d bytes, the limit is %d", len(s.Remark), remarkMax)
	}
	return nil
}

func (h *handler) deleteTopic(w http.ResponseWriter, r *http.Request) {
	err := h.Store.DeleteTopic(r.Context(), r.PathValue("name"))
	if errors.Is(err, store.ErrNotFound) {
		err = errors.New("storage: NotFound")
	}
	write(w, err)
}

// kv is a topic as dtm shows it.
type kv struct {
	model
	Category string `json:"cat"`
	Key      string `json:"k"`
	Value    string `json:"v"`       // JSON text: a list of subscribers
	Version  int64  `json:"version"` // how often it was changed
}

type subscriber struct {
	URL    string `json:"url"`
	Remark string `json:"remark"`
}

type kvAnswer struct {
	KV []kv `json:"kv"`
}

type scanAnswer struct {
	kvAnswer
	NextPosition string `json:"next_position"` // empty at the end
}

// scanKV lists topics in the order of their names.
func (h *handler) scanKV(r *http.Request) (any, error) {
	q := r.URL.Query()
	limit, err := limitOf(q)
	if err != nil {
		return nil, err
	}
	return h.scan(r, q.Get("cat"), q.Get("position"), limit)
}

func (h *handler) scan(r *http.Request, category, after string, limit int) (a scanAnswer, err error) {
	a.KV = []kv{}
	if category != topicCategory {
		return a, nil
	}
	names, err := h.Store.AllTopics(r.Context(), after, limit+1) // one more, to know whether there is
	if err != nil {
		return a, err
	}
	if len(names) > limit {
		names = names[:limit]
		a.NextPosition = names[limit-1]
	}
	for _, name := range names {
		if a.KV, err = h.appendTopic(r, a.KV, name); err != nil {
			return a, err
		}
	}
	return a, nil
}

// queryKV shows one topic; all of them, up to the most that a list may have, if none is
// named.
func (h *handler) queryKV(r *http.Request) (any, error) {
	q := r.URL.Query()
	if q.Get("key") == "" {
		a, err := h.scan(r, q.Get("cat"), "", store.ListLimitMax)
		return a.kvAnswer, err
	}
	a := kvAnswer{KV: []kv{}}
	if q.Get("cat") != topicCategory {
		return a, nil
	}
	var err error
	a.KV, err = h.appendTopic(r, a.KV, q.Get("key"))
	return a, err
}

func (h *handler) appendTopic(r *http.Request, all []kv, name string) ([]kv, error) {
	version, err := h.Store.TopicVersion(r.Context(), name)
	if errors.Is(err, store.ErrNotFound) {
		return all, nil
	}
	if err != nil {
		return all, err
	}
	present, err := h.Store.Topic(r.Context(), name)
	if err != nil {
		return all, err
	}
	list := make([]subscriber, len(present))
	for i, s := range present {
		list[i] = subscriber(s)
	}
	text, err := json.Marshal(list)
	return append(all, kv{Category: topicCategory, Key: name, Value: string(text), Version: version}), err
}
