"""OpenAPI documents of all contracts, and the pages that show them.

operation   what is said of one operation, as data: what each dialect's `openapi` lists
codes       every error code: its status, and what its message may look like
document    from a contract's operations to its OpenAPI 3.1 document (pure)
contracts   the list of them; imports the dialects, so nothing that a dialect imports may import it
page        a document as a page to read (pure)
routes      `/openapi`, `/openapi/<contract>.json`, `/docs`, `/docs/<contract>`
"""
