package client

import "encoding/json"

// encode turns what a program passes as a payload into bytes: []byte, json.RawMessage
// and nil as they are, anything else as JSON.
func encode(payload any) ([]byte, error) {
	switch p := payload.(type) {
	case nil:
		return nil, nil
	case []byte:
		return p, nil
	case json.RawMessage:
		return p, nil
	}
	return json.Marshal(payload)
}
