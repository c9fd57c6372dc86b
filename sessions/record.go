package sessions

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
)

// While a new version is rolled out, older replicas work beside newer ones on the same records. Fields may be added to a record at any time: who does not know one
// leaves it as it is when the record is written again. Anything else raises the version of the queue's layout (queue/layout.go), and older replicas refuse it.

// Rest are fields of a record that this version does not know.
type Rest map[string]json.RawMessage

// readFields decodes a record into a struct, and returns the fields that this does not have.
func readFields(body []byte, into any) (Rest, error) {
	strict := json.NewDecoder(bytes.NewReader(body))
	strict.DisallowUnknownFields()
	if strict.Decode(into) == nil && !strict.More() { // as nearly always
		return nil, nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return nil, err
	}
	var rest Rest
	if err := json.Unmarshal(body, &rest); err != nil {
		return nil, err
	}
	for f := range reflect.TypeOf(into).Elem().Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		delete(rest, name)
	}
	return rest, nil
}

// writeFields encodes a struct with the fields that it does not have.
func writeFields(v any, rest Rest) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil || len(rest) == 0 {
		return body, err
	}
	var all Rest
	if err := json.Unmarshal(body, &all); err != nil {
		return nil, fmt.Errorf("encode a record again: %w", err)
	}
	maps.Copy(all, rest)
	return json.Marshal(all)
}
