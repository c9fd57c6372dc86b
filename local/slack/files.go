package slack

import (
	"io"
	"net/http"
	"strconv"
	"strings"
)

// file is an upload.
type file struct {
	id, name, title, user string
	data                  []byte
	channel               string
}

// maxFile bounds one upload to the stand-in, in bytes.
const maxFile = 64 << 20

func (s *Server) uploadURL(c *call) (fields, error) {
	n, err := strconv.Atoi(c.str("length"))
	if err != nil || n <= 0 || c.str("filename") == "" {
		return nil, refuse("invalid_arguments")
	}
	if n > maxFile {
		return nil, refuse("file_upload_size_restricted")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := &file{id: s.id("F"), name: c.str("filename"), user: c.caller.id}
	s.files[f.id] = f
	return fields{"upload_url": "http://" + c.r.Host + "/upload/" + f.id, "file_id": f.id}, nil
}

// upload takes the bytes, raw or as the only part of a form.
func (s *Server) upload(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(http.MaxBytesReader(w, r.Body, maxFile))
	if strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data") {
		parts, err := r.MultipartReader()
		if err != nil {
			http.Error(w, "bad form", http.StatusBadRequest)
			return
		}
		part, err := parts.NextPart()
		if err != nil {
			http.Error(w, "bad form", http.StatusBadRequest)
			return
		}
		body = part
	}
	data, err := io.ReadAll(io.LimitReader(body, maxFile))
	if err != nil {
		http.Error(w, "cut short", http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[r.PathValue("file")]
	if f == nil {
		http.Error(w, "no such upload", http.StatusNotFound)
		return
	}
	f.data = data
	_, _ = io.WriteString(w, "OK - "+strconv.Itoa(len(data)))
}

func (f *file) shown(host string) fields {
	kind := strings.Split(http.DetectContentType(f.data), ";")[0]
	return fields{
		"id": f.id, "name": f.name, "title": f.title, "mimetype": kind, "size": len(f.data), "user": f.user, "mode": "hosted", "is_external": false,
		"url_private": "http://" + host + "/files/" + f.id, "url_private_download": "http://" + host + "/files/" + f.id + "?download=1",
	}
}

// completeUpload shares uploads into a channel or a thread, as one message.
func (s *Server) completeUpload(c *call) (fields, error) {
	list, _ := c.value("files").([]any)
	s.mu.Lock()
	defer s.mu.Unlock()
	var shared []any
	out := []fields{}
	for _, e := range list {
		e, _ := e.(map[string]any)
		id, _ := e["id"].(string)
		f := s.files[id]
		if f == nil || f.data == nil {
			return nil, refuse("file_not_found")
		}
		f.title, _ = e["title"].(string)
		if f.title == "" {
			f.title = f.name
		}
		shared = append(shared, f.shown(c.r.Host))
		out = append(out, fields{"id": f.id, "title": f.title})
	}
	if len(shared) == 0 {
		return nil, refuse("invalid_arguments")
	}
	if id := c.str("channel_id"); id != "" {
		ch, err := s.channelOf(c, id)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			s.files[e.(map[string]any)["id"].(string)].channel = ch.id
		}
		body := fields{"subtype": "file_share", "upload": true, "text": c.str("initial_comment"), "files": shared}
		s.post(ch, c.caller, c.str("thread_ts"), body, nil)
	}
	return fields{"files": out}, nil
}

func (s *Server) fileInfo(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[c.str("file")]
	if f == nil {
		return nil, refuse("file_not_found")
	}
	return fields{"file": f.shown(c.r.Host)}, nil
}

// download gives a file to who may see it; without a token Slack answers with its login page.
func (s *Server) download(w http.ResponseWriter, r *http.Request) {
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if token == "" {
		token = r.URL.Query().Get("token") // for the page's images
	}
	p, ok := personBy(func(p person) bool { return p.token == token })
	s.mu.Lock()
	f := s.files[r.PathValue("file")]
	if f != nil && ok {
		ok = f.user == p.id
		for _, ch := range s.channels {
			ok = ok || (ch.id == f.channel && ch.members[p.id])
		}
	}
	s.mu.Unlock()
	if f == nil || !ok {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<!DOCTYPE html><title>Sign in</title><p>Sign in to see this file.")
		return
	}
	w.Header().Set("Content-Type", http.DetectContentType(f.data))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "sandbox")
	if r.URL.Query().Get("download") != "" {
		w.Header().Set("Content-Disposition", "attachment; filename="+strconv.Quote(f.name))
	}
	_, _ = w.Write(f.data)
}
