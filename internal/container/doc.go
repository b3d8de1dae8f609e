// Package container reads and writes the .rms file: an immutable prefix that
// says which document it is, the encrypted original name and type, the
// publishing license, and the encrypted content to the end of the file.
//
//	 0  magic 89 52 4d 53 0d 0a 1a 0a
//	 8  version u16, content suite u16, zero u32
//	16  tenant ID, content ID (16 bytes each)
//	48  key commitment (32 bytes)
//	80  stream offset u32: a multiple of 4096 from 8 KiB to 1 MiB
//	84  length of the metadata u32
//	88  length of the publishing license u32, zero u32
//	96  metadata, publishing license, zeros up to the stream offset
//	    content stream to the end of the file
//
// Integers are big-endian. The first 80 bytes are the [Prefix]; they are the
// associated data of the metadata and of the content, so nothing sealed in one
// container opens in another. The stream is Tink's AES256-GCM-HKDF-1MB
// (SHA-256, segments of 1,048,576 bytes) under a key derived from the content
// key; stock Tink opens it.
//
// The package knows bytes and keys, no policy and no license: it hands out the
// publishing license as it is, and the caller verifies it and compares it with
// the prefix before it asks a server for the key.
//
// # What authenticated means here
//
// Content comes in segments, and every byte handed out is authentic and in its
// place. That the content is complete is known only with its last segment.
// [Header.Reader] therefore releases earlier segments before it can know that
// the last one is good: stream into a temporary file and use that file only
// after io.EOF. [Header.ReaderAt] authenticates the last segment before it
// serves the first byte, so its size is the true one from the start.
package container
