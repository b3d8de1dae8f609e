package evidence

import (
	"encoding/binary"
	"hash/crc32"
)

// The one form of zip file that a bundle is: files stored as they are, without
// times, comments and extra fields, in one order. It is written by hand so that
// the same evidence is the same bytes whatever library reads it.
const (
	localHeader   = 0x04034b50
	centralHeader = 0x02014b50
	endOfCentral  = 0x06054b50
	zipVersion    = 20
	// zipDate is the 1st of January 1980, the least that a zip file can say.
	zipDate = 1<<5 | 1

	maxFiles = 16
	maxName  = 64
)

// archive writes files as a zip file.
func archive(files []file) []byte {
	le := binary.LittleEndian
	var out, central []byte
	for _, f := range files {
		at := uint32(len(out))
		common := le.AppendUint16(nil, zipVersion)
		common = append(common, 0, 0, 0, 0, 0, 0) // flags, method: stored, time
		common = le.AppendUint16(common, zipDate)
		common = le.AppendUint32(common, crc32.ChecksumIEEE(f.content))
		common = le.AppendUint32(common, uint32(len(f.content)))
		common = le.AppendUint32(common, uint32(len(f.content)))
		common = le.AppendUint16(common, uint16(len(f.name)))
		common = append(common, 0, 0) // extra field
		out = append(append(le.AppendUint32(out, localHeader), common...), f.name...)
		out = append(out, f.content...)
		central = le.AppendUint16(le.AppendUint32(central, centralHeader), zipVersion)
		central = append(central, common...)
		central = append(central, make([]byte, 10)...) // comment, disk, attributes
		central = append(le.AppendUint32(central, at), f.name...)
	}
	end := le.AppendUint32(nil, endOfCentral)
	end = append(end, 0, 0, 0, 0)
	end = le.AppendUint16(le.AppendUint16(end, uint16(len(files))), uint16(len(files)))
	end = le.AppendUint32(le.AppendUint32(end, uint32(len(central))), uint32(len(out)))
	return append(append(append(out, central...), end...), 0, 0)
}

// unarchive reads what archive writes, and nothing else: whatever a zip file can
// hide beside its files is refused.
func unarchive(b []byte) ([]file, error) {
	const size = 30 // of a local header
	le := binary.LittleEndian
	var files []file
	rest := b
	for len(rest) >= size && le.Uint32(rest) == localHeader {
		content, name := uint64(le.Uint32(rest[18:])), uint64(le.Uint16(rest[26:]))
		if len(files) == maxFiles || name > maxName || size+name+content > uint64(len(rest)) {
			return nil, bad("it is truncated, or not a bundle of evidence")
		}
		files = append(files, file{string(rest[size : size+name]), rest[size+name : size+name+content]})
		rest = rest[size+name+content:]
	}
	if len(files) == 0 || !sameBytes(b, files) {
		return nil, bad("it is truncated, or not a bundle of evidence")
	}
	return files, nil
}
