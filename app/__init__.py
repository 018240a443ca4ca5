"""The data browser: a Streamlit page over dataset directories, fast at ten million rows."""
