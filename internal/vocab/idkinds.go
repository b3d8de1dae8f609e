package vocab

// The identifiers by name, where the kind cannot be inferred.

// NewTenantID, NewGenerationID, NewCustodianID, NewTemplateUID and NewCertID
// return random identifiers.
func NewTenantID() TenantID         { return NewRandom[tenantKind]() }
func NewGenerationID() GenerationID { return NewRandom[generationKind]() }
func NewCustodianID() CustodianID   { return NewRandom[custodianKind]() }
func NewTemplateUID() TemplateUID   { return NewRandom[templateKind]() }
func NewCertID() CertID             { return NewRandom[certKind]() }

// NewContentID, NewEventID, NewOperationID and NewBackupID return time-ordered identifiers.
func NewContentID() ContentID     { return NewOrdered[contentKind]() }
func NewEventID() EventID         { return NewOrdered[eventKind]() }
func NewOperationID() OperationID { return NewOrdered[operationKind]() }
func NewBackupID() BackupID       { return NewOrdered[backupKind]() }

// NewArchiveID returns a time-ordered identifier.
func NewArchiveID() ArchiveID { return NewOrdered[archiveKind]() }

// ParseContentID, ParseTenantID, ParseEventID, ParseOperationID, ParseBackupID
// and ParseTemplateUID read the text form.
func ParseContentID(s string) (ContentID, error)     { return ParseID[contentKind](s) }
func ParseTenantID(s string) (TenantID, error)       { return ParseID[tenantKind](s) }
func ParseEventID(s string) (EventID, error)         { return ParseID[eventKind](s) }
func ParseOperationID(s string) (OperationID, error) { return ParseID[operationKind](s) }
func ParseBackupID(s string) (BackupID, error)       { return ParseID[backupKind](s) }
func ParseTemplateUID(s string) (TemplateUID, error) { return ParseID[templateKind](s) }
