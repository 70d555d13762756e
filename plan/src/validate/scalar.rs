// TAKEN by 'validation-2': shared helpers (Fields collector of errors with FieldPath, refuse-if-set macro, durations, Any decoding).
