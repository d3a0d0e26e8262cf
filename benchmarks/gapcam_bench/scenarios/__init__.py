"""How frames arrive: MLPerf's scenarios, and a camera's."""
