/* XML that comes from elsewhere, as a tree of bounded size: without a DTD, so without entities and
 * other files. Elements and attributes are known by their local names. On one thread. */
#pragma once
#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum { XML_TEXT_MAX = 1 << 20 /* bytes of a document */ };

struct _xmlNode;
struct _xmlDoc;

/* The document, for xmlFreeDoc; NULL with an error. `name` is the text's. */
struct _xmlDoc *xml_read(const char *text, size_t length, const char *name, GError **error);

bool xml_is(const struct _xmlNode *node, const char *name);
/* The first child element of that name; NULL. */
struct _xmlNode *xml_child(const struct _xmlNode *node, const char *name);
/* What an attribute, or a child element, says: trimmed, cut off where it is long, and with nothing
 * in it that a terminal would obey. NULL: there is none. */
char *xml_attribute(const struct _xmlNode *node, const char *name);
char *xml_text(const struct _xmlNode *node, const char *name);
/* A whole number in decimal digits; false when it is none. */
bool xml_number(const char *text, uint64_t *value);
/* That of a child element; 0 when it is none. */
unsigned xml_child_number(const struct _xmlNode *node, const char *name);
