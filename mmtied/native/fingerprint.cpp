// Which code this library was compiled from; see builds.py.

extern "C" const char *mmtied_fingerprint() { return MMTIED_FINGERPRINT; }
