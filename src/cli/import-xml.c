/* XML that comes from elsewhere; see import-xml.h. */
#include "cli/import-xml.h"

#include "base/error.h"

#include <libxml/parser.h>
#include <libxml/tree.h>
#include <string.h>

enum {
    TEXT_MAX = 256,     /* bytes of a text that is used */
    TAG_MAX = 16 << 10, /* bytes of a tag: libxml2 compares each attribute with each other */
};

bool xml_is(const xmlNode *node, const char *name)
{
    return node->type == XML_ELEMENT_NODE && !strcmp((const char *)node->name, name);
}

/* The first child element of that name; NULL. */
xmlNode *xml_child(const xmlNode *node, const char *name)
{
    xmlNode *found = node ? node->children : NULL;
    while (found && !xml_is(found, name))
        found = found->next;
    return found;
}

/* Text for people and for comparisons: trimmed, not long, nothing that a terminal would obey. */
static char *xml_clean(const xmlChar *text)
{
    if (!text)
        return NULL;
    g_autofree char *start = g_strndup((const char *)text, TEXT_MAX);
    g_autofree char *valid = g_utf8_make_valid(start, -1);
    for (char *c = valid; *c; c = g_utf8_next_char(c))
        if (!g_unichar_isprint(g_utf8_get_char(c)) && !g_ascii_isspace(*c))
            memset(c, '?', (size_t)(g_utf8_next_char(c) - c));
    g_strdelimit(valid, "\t\n\v\f\r", ' ');
    return g_strdup(g_strstrip(valid));
}

char *xml_attribute(const xmlNode *node, const char *name)
{
    for (const xmlAttr *a = node->properties; a; a = a->next)
        if (!strcmp((const char *)a->name, name)) {
            xmlChar *text = xmlNodeListGetString(node->doc, a->children, 1);
            char *value = xml_clean(text);
            xmlFree(text);
            return value;
        }
    return NULL;
}

char *xml_text(const xmlNode *node, const char *name)
{
    const xmlNode *found = xml_child(node, name);
    xmlChar *text = found ? xmlNodeGetContent(found) : NULL;
    char *value = xml_clean(text);
    xmlFree(text);
    return value;
}

/* False when it is none. */
bool xml_number(const char *text, uint64_t *value)
{
    char *end = NULL;
    *value = text && g_ascii_isdigit(*text) ? g_ascii_strtoull(text, &end, 10) : 0;
    return end && !*end && *value != UINT64_MAX;
}

unsigned xml_child_number(const xmlNode *node, const char *name)
{
    g_autofree char *text = xml_text(node, name);
    uint64_t value;
    return xml_number(text, &value) && value < UINT32_MAX ? (unsigned)value : 0;
}

static void refuse_dtd(void *opaque, const xmlChar *name, const xmlChar *external,
                       const xmlChar *system)
{
    xmlParserCtxt *parser = opaque;
    (void)name, (void)external, (void)system;
    *(bool *)parser->_private = true;
    xmlStopParser(parser);
}

/* Is it UTF-8 with tags of bounded size? What is no tag, and no text, starts with <! or <?. */
static bool bounded(const char *text, size_t length)
{
    const char *end = text + length;
    if (length > XML_TEXT_MAX || !g_utf8_validate_len(text, length, NULL))
        return false;
    for (const char *tag = text; (tag = memchr(tag, '<', (size_t)(end - tag))); tag++) {
        char quote = 0;
        const char *c = tag + 1;
        for (; c < end && (quote || *c != '>') && c - tag <= TAG_MAX; c++)
            quote = quote ? (*c == quote ? 0 : quote) : (*c == '"' || *c == '\'') ? *c : 0;
        if (c - tag > TAG_MAX && tag[1] != '!' && tag[1] != '?')
            return false;
    }
    return true;
}

xmlDoc *xml_read(const char *text, size_t length, const char *name, GError **error)
{
    bool dtd = false;
    xmlParserCtxt *parser = bounded(text, length) ? xmlNewParserCtxt() : NULL;
    if (!parser) {
        hv_fail(error, HV_FAILED, "%s: XML in UTF-8 of at most %d KiB, with short tags, is wanted",
                name, XML_TEXT_MAX >> 10);
        return NULL;
    }
    parser->_private = &dtd;
    parser->sax->internalSubset = refuse_dtd;
    xmlDoc *doc = xmlCtxtReadMemory(parser, text, (int)length, NULL, "UTF-8",
                                    XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
                                        XML_PARSE_NOCDATA | XML_PARSE_COMPACT);
    const xmlError *reason = xmlCtxtGetLastError(parser);
    g_autofree char *why = reason ? xml_clean((const xmlChar *)reason->message) : NULL;
    if (dtd)
        hv_fail(error, HV_FAILED, "%s: it has a document type definition, which OVF has not", name);
    else if (!doc)
        hv_fail(error, HV_FAILED, "%s: line %d: this is not well-formed XML: %s", name,
                reason ? reason->line : 0, why ? why : "it is empty");
    if (dtd && doc) {
        xmlFreeDoc(doc);
        doc = NULL;
    }
    xmlFreeParserCtxt(parser);
    return doc;
}
