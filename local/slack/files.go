package slack

import (
	"bytes"
	"image"
	_ "image/gif"  // sizes of pictures
	_ "image/jpeg" // the same
	_ "image/png"  // the same
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
)

// file is an upload.
type file struct {
	id, name, title, user string
	length                int
	data                  []byte // never changed once set
	shares                []share
}

// share is where a file was shared.
type share struct{ channel, ts, thread string }

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
	f := &file{id: s.id("F"), name: c.str("filename"), length: n, user: c.caller.id}
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
	if len(data) != f.length {
		http.Error(w, "the file has another length than it was said to have", http.StatusBadRequest)
		return
	}
	f.data = data
	_, _ = io.WriteString(w, "OK - "+strconv.Itoa(len(data)))
}

func (f *file) shown(host string) fields {
	kind, _, _ := strings.Cut(http.DetectContentType(f.data), ";")
	public := fields{}
	for _, sh := range f.shares {
		at := fields{"ts": sh.ts}
		if sh.thread != "" {
			at["thread_ts"] = sh.thread
		}
		list, _ := public[sh.channel].([]any)
		public[sh.channel] = append(list, at)
	}
	out := fields{
		"id": f.id, "name": f.name, "title": f.title, "mimetype": kind, "size": len(f.data), "user": f.user, "mode": "hosted", "is_external": false,
		"url_private": "http://" + host + "/files/" + f.id, "url_private_download": "http://" + host + "/files/" + f.id + "?download=1",
		"shares": fields{"public": public},
	}
	if size, _, err := image.DecodeConfig(bytes.NewReader(f.data)); err == nil {
		out["original_w"], out["original_h"] = size.Width, size.Height
	}
	return out
}

// completeUpload shares uploads into a channel or a thread, as one message.
func (s *Server) completeUpload(c *call) (fields, error) {
	list, _ := c.value("files").([]any)
	blocks, err := c.blocks()
	if err != nil {
		return nil, err
	}
	if problems := checkBlocks(blocks, message); len(problems) > 0 {
		return nil, refuse(problems[0].code, texts(problems)...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var files []*file
	out := []fields{}
	for _, e := range list {
		e, _ := e.(map[string]any)
		id, _ := e["id"].(string)
		f := s.files[id]
		if f == nil || f.data == nil || f.user != c.caller.id {
			return nil, refuse("file_not_found")
		}
		if f.title, _ = e["title"].(string); f.title == "" {
			f.title = f.name
		}
		files = append(files, f)
		out = append(out, fields{"id": f.id, "title": f.title})
	}
	if len(files) == 0 {
		return nil, refuse("invalid_arguments")
	}
	if id := c.str("channel_id"); id != "" {
		ch, err := s.writable(c, id)
		if err != nil {
			return nil, err
		}
		shown := make([]any, 0, len(files))
		for _, f := range files {
			shown = append(shown, f.shown(c.r.Host))
		}
		body := fields{"subtype": "file_share", "upload": true, "text": c.str("initial_comment"), "files": shown}
		if len(blocks) > 0 {
			nameBlocks(blocks)
			body["blocks"] = blocks
		}
		m := s.post(ch, c.caller, ch.threadOf(c.str("thread_ts")), body, nil)
		for _, f := range files {
			f.shares = append(f.shares, share{channel: ch.id, ts: m.str("ts"), thread: m.str("thread_ts")})
		}
	}
	return fields{"files": out}, nil
}

// mayRead tells whether a person may see a file: its own, and those of the person's channels. s.mu must be held.
func (s *Server) mayRead(p person, f *file) bool {
	ok := f.user == p.id
	for _, ch := range s.channels {
		for _, sh := range f.shares {
			ok = ok || (ch.id == sh.channel && ch.members[p.id])
		}
	}
	return ok
}

func (s *Server) fileInfo(c *call) (fields, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.files[c.str("file")]
	if f == nil || !s.mayRead(c.caller, f) {
		return nil, refuse("file_not_found")
	}
	return fields{"file": f.shown(c.r.Host)}, nil
}

// download gives a file to who may see it; without a token Slack answers with its login page.
func (s *Server) download(w http.ResponseWriter, r *http.Request) {
	token, byHeader := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !byHeader {
		token = r.URL.Query().Get("token") // for the page's images
	}
	p, ok := personBy(func(p person) bool { return p.token == token })
	s.mu.Lock()
	f := s.files[r.PathValue("file")]
	ok = ok && f != nil && s.mayRead(p, f)
	var data []byte
	if ok {
		data = f.data
	}
	s.mu.Unlock()
	if !ok {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<!DOCTYPE html><title>Sign in</title><p>Sign in to see this file.")
		return
	}
	w.Header().Set("Content-Type", http.DetectContentType(data))
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "sandbox")
	if r.URL.Query().Get("download") != "" {
		w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": f.name}))
	}
	_, _ = w.Write(data)
}
